"""The verbs of the command `sregistry`, one module each; the table of them is `sregistry.cli.verbs`."""
