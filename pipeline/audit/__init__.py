"""Audits: whether sets, bundles and this installation are what they claim to be."""
