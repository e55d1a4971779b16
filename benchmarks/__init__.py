"""Speed and memory of dubbing, preprocessing and training on this machine."""

import runtime.threads  # noqa: F401 (before PyTorch)
