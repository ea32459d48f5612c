"""What stages leave in a working folder, for the stages after them and for people.

```
paths: where everything is      manifest.json ─▶ resolved      all other JSON ─▶ receipts ─▶ sweep      a refresh ─▶ changes
                                what is missing, and why ─▶ failures ─┐
                                logs, benchmarks ─────────────────────┴▶ job_logs
```
"""
