"""What stages leave in a working folder, for the stages after them and for people.

```
results/<key>/{manifest,metadata,sandbox,image,…}.json  ─▶ resolved, receipts          a stage that failed ─▶ failures
```
"""
