"""The command `sregistry`: one module a verb.

```
$ sregistry pull URI ──▶ __main__ ──▶ verbs: name → module ──▶ commands/pull ──▶ client
```
"""
