"""The defaults of builds and of reading, which commands and functions share. It imports nothing."""

KEEP = ("resample", "representation")
MAX_BAD = 0.01
CLIP_TIMEOUT = 600.0  # seconds, for one item and attempt
SHARD_SECONDS = 600.0
CACHE_BYTES = 64 * 2**30  # of shard files that come from object stores
