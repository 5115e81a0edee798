"""What a feature set is, or how two differ, as one HTML page."""
