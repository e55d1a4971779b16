"""Shipped weights, and the registry of weights that others publish."""
