"""Fixtures that several rooms share."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The development material beside the checkout; tests that need it skip where it is absent (users lack it)."""
    if not SHARED.is_dir():
        pytest.skip("../shared (clips, weights and reference cases for development) is absent")
    return SHARED
