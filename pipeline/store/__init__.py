"""The Zarr format."""
