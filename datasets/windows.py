"""Which frames make a sample: pure index functions. `found` (F,) says in which frames there is a face."""

import numpy as np
from numpy import ndarray
from numpy.lib.stride_tricks import sliding_window_view

MIN_FRAMES = 25  # frames with a face that a clip needs to be trained on


def longest_run(found: ndarray) -> int:
    """Length of the longest run of frames with a face."""
    gaps = np.flatnonzero(~np.pad(found, 1))  # one before the clip and one after it
    return int(np.diff(gaps).max()) - 1


def window_starts(found: ndarray, length: int) -> ndarray:
    """Every start of `length` consecutive frames that all show a face, in order; there must be that many frames."""
    return np.flatnonzero(sliding_window_view(found, length).all(axis=1))


def shown_frames(found: ndarray, most: int) -> ndarray:
    """Up to `most` frames in a row, from the start of the longest run; at least half of it is left for references."""
    length = longest_run(found)
    start = window_starts(found, length)[0]
    return start + np.arange(min(most, (length + 1) // 2))


def sample_references(rng: np.random.Generator, found: ndarray, excluded: ndarray, count: int) -> ndarray:
    """Draws `count` frames with a face that are not in `excluded`; they repeat only if there are too few.

    Raises:
        ValueError: no frame is left to draw from.
    """
    candidates = np.setdiff1d(np.flatnonzero(found), excluded)
    return rng.choice(candidates, count, replace=len(candidates) < count)
