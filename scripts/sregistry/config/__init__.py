"""What was asked for: options, variables, files of the user, images and patterns.

```
--config, config.yaml, variables, secrets file ─▶ settings ┐      options: one row each; schema_check: mistakes with their line
images, patterns, lock file ─▶ requested ─▶ targets ───────┴▶ plan          registries: who is asked, and how
```
"""
