"""On what."""
