"""A run of the workflow: what Snakemake needs to know, and what people are told.

```
pull ──▶ engine ──▶ Snakemake ──▶ stages            progress, summary, report ◀── results, logs
```
"""
