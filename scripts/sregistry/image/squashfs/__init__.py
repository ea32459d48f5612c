"""Squashfs 4.0 images composed from data blocks that were compressed before.

```
| superblock 96 | data blocks and fragment blocks | inodes | directories | fragments | ids | xattrs | pad to 4096 |
                  layout                            tree                   writer            attributes
```

`format` has the structures on disk. `writer` plans an image of a sandbox: which stretches of which
exploded layers to copy between superblock and tables, and the tables. `columns` is what inodes are
made of, `stream` the metadata blocks that all tables consist of.
"""
