"""What was asked for: options, settings, files of the user, images and patterns."""
