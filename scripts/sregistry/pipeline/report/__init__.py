"""The pages for `snakemake --report`.

```
results, logs, benchmarks ─▶ data ─▶ pages ─▶ templates/*.html
```
"""
