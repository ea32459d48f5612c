"""References, manifests, digests and platforms: pure, without files and network."""
