"""The networks. `models.load(path)` loads a trained one, `models.build(config)` makes a new one."""

from models.weights import build, load

__all__ = ["build", "load"]
