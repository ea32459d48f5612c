"""What was asked for: options, variables, files of the user, images and patterns.

```
--config, config.yaml, variables, secrets file ─▶ settings ┐
images, patterns, lock file ─▶ requested ─▶ targets ───────┴▶ plan          registries: who is asked, and how
```
"""
