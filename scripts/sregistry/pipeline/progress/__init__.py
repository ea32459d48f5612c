"""How far a run is, and how that is shown.

```
manifest.json ─ layers, sizes ┐
<store>/ingest/….partial      ├─▶ tracker: Tracker.look() ─▶ View ─▶ displays: Bars │ Lines │ Silent
receipts, heartbeat ──────────┘
```
"""
