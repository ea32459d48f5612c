"""The store: blobs and exploded layers, shared by users and nodes, resumable.

```
bytes ─▶ partial_blob ─▶ store: blobs/, exploded/, index.json ─▶ survey ─▶ maintenance: check, clean
          all access goes through beneath: no name leads out of the folder
```
"""
