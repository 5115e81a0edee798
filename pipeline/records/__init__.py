"""What is known of a key."""
