"""The catalog: records of images, questions to them, and the files of the images.

```
image.json + manifest.json ─▶ record ─▶ database      facts, filters, sharing, lookup ─▶ answers
other catalogs, folders ─▶ imports ─▶ record          image_files: add, rename, remove with the record
a registry's manifests ─▶ remote ─▶ record            local_images, container: all of it as methods
```
"""
