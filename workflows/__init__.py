"""Luigi workflows to copy and change."""
