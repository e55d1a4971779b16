"""Speed and memory of dubbing on this machine."""

import runtime.threads  # noqa: F401 (before PyTorch)
