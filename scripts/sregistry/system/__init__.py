"""What every process needs of its machine: locks, signals, cores, logs, units and limits.

```
locks ── signals          heartbeat ─▶ files ─▶ progress of a pull          logs ─▶ stderr
```
"""
