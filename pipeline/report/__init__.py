"""Reports: one HTML page about a feature set, or about the differences between two."""
