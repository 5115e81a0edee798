"""Manifests: the clips of a data set, scanned from folders or tables."""
