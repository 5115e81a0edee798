"""Recipes: the parameters of every stage, and their hashes."""
