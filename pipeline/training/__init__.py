"""Feature sets opened, and batches of them."""
