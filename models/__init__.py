"""The networks. `models.load(path)` gives a trained one."""

from models.weights import load

__all__ = ["load"]
