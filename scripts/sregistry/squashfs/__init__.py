"""Squashfs 4.0 images composed from data blocks that were compressed before.

```
| superblock 96 | data blocks and fragment blocks | inodes | directories | fragments | ids | xattrs | pad to 4096 |
```

`format` has the structures on disk, `writer` builds the tables for a sandbox and says which stretches
of which exploded layers to copy between superblock and tables.
"""
