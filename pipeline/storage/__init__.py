"""Bytes: atomic commits, checksums, locks, object stores, temporary files."""
