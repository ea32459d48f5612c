"""A layer's tar stream becomes squashfs blocks and an index, once for all images.

```
blob ─▶ inflate ─▶ tar_reader ─▶ explode ─┬▶ data   compressed blocks
                                          └▶ index  names, owners, modes, where the blocks are          verify: whose layers are used
```
"""
