"""The catalog: records of images, filters, and the images' files."""
