"""Defaults of builds and of reading, shared by commands and functions. Imports nothing."""

KEEP = ("resample", "representation")
MAX_BAD = 0.01
CLIP_TIMEOUT = 600.0  # seconds, for one item and attempt
SHARD_SECONDS = 600.0
CACHE_BYTES = 64 * 2**30  # of shard files fetched from object stores
