"""References, manifests, digests and platforms: pure, without files and network.

```
text ─▶ reference          bytes ─▶ parse ─▶ documents, schema1 ─▶ digest, platforms          tags ─▶ versions
```
"""
