"""The rules of the workflow as commands: one module a rule, each can be run by hand.

```
tags ─▶ manifest ─▶ layer ─▶ explode ─┐
                └──▶ metadata ────────┴▶ sandbox ─▶ image ─▶ catalog          refresh: what changed since
```
"""
