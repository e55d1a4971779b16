"""Which frames make a sample: pure index functions. `found` (F,) says in which frames there is a face."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

MIN_FRAMES = 25  # frames with a face that a clip needs to be trained on


def longest_run(found: np.ndarray) -> int:
    """Length of the longest run of frames with a face."""
    gaps = np.flatnonzero(~np.pad(found, 1))  # one before the clip and one after it
    return int(np.diff(gaps).max()) - 1


def window_starts(found: np.ndarray, length: int) -> np.ndarray:
    """Every start of `length` consecutive frames that all show a face, in order; empty if there is none."""
    if length > len(found):
        return np.empty(0, dtype=int)
    return np.flatnonzero(sliding_window_view(found, length).all(axis=1))


def sample_references(rng: np.random.Generator, found: np.ndarray, excluded: np.ndarray, count: int) -> np.ndarray:
    """Draws `count` frames with a face that are not in `excluded`; they repeat only if there are too few.

    Raises:
        ValueError: no frame is left to draw from.
    """
    candidates = np.setdiff1d(np.flatnonzero(found), excluded)
    return rng.choice(candidates, count, replace=len(candidates) < count)
