"""The command `sregistry`: one module a verb."""
