"""The typed parameters of each kind of representation, and what they compute."""
