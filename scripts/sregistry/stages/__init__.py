"""The stages of the pipeline as commands: one a rule, each can be run by hand."""
