"""The store: blobs and exploded layers, shared, resumable."""
