"""Records taken from elsewhere.

```
another catalog ─▶ records      a folder of images ─▶ folder      the database of the original sregistry ─▶ original_database
```
"""
