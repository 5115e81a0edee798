"""Luigi tasks and engines."""
