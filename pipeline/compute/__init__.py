"""Samples to features."""
