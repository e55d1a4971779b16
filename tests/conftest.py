"""Fixtures that several rooms share."""

import runtime.threads  # isort: skip  # noqa: F401 (before PyTorch)

import signal
from pathlib import Path

import pytest

# A shell's background jobs ignore SIGINT, and so would the processes that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The development material beside the checkout; tests that need it skip where it is absent (users lack it)."""
    if not SHARED.is_dir():
        pytest.skip("../shared (clips, weights and reference cases for development) is absent")
    return SHARED
