"""Shipped weights, and the registry of weights published by others."""
