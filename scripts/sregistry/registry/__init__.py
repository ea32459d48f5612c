"""Names become bytes: what is asked of a registry, and a registry of one's own.

```
uri ─▶ tag_lists, resolve ─▶ client ─▶ connection ─▶ exchange ─▶ wire ─▶ registry          store ─▶ server ─▶ other machines
           layer ─▶ fetch ─┘ ranges      └ tokens, credentials, rate_limit, http
```
"""
