"""Bytes that can be trusted: atomic writes, checksums, locks, frozen weights, safe reading of `.pth` files."""
