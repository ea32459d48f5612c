"""Exploded layers become an image: SIF, simg, sandbox."""
