"""The benchmark: ours and its peers on the same images, from the same registry, in one run.

```
packages   Debian packages and wheels, by the machine's own apt and pip ─▶ members
images     recipes ─▶ layers, kept ─▶ images, their next release, a batch
registry   docker-registry on 127.0.0.1, and the upload
peers      what each peer runs for each kind of work
measure    one run: wall, CPU, memory, disk
levels     one layer at each level, ours beside squashfs-tools
scale      our stages on up to a million entries, 300 layers, a file of 6 GB
connections  a layer from a server that limits each connection
report     the runs as Markdown
```

`scripts/benchmark --help` tells the options.
"""
