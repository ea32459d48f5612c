"""Exploded layers become an image: SIF, simg or sandbox.

```
layers ─▶ merge ─▶ tree ┬▶ squashfs ─▶ sif, simg ┐
                        └▶ unpack ───▶ sandbox   ┴▶ assemble ─▶ the file under its final name
config ─▶ metadata, base_environment ────────────┘          other_builders: mksquashfs, Apptainer
```
"""
