"""Names become bytes: login, requests, retries, tags, manifests and blobs of a registry."""
