"""The frames of a sample: pure index functions. `found` (F,) is true for frames with a face."""

import numpy as np
from numpy import ndarray
from numpy.lib.stride_tricks import sliding_window_view

MIN_FRAMES = 25  # frames with a face that a clip needs for training


def longest_run(found: ndarray) -> int:
    """Length of the longest run of frames with a face."""
    gaps = np.flatnonzero(~np.pad(found, 1))  # with one before the clip and one after it
    return int(np.diff(gaps).max()) - 1


def window_starts(found: ndarray, length: int) -> ndarray:
    """Every start of `length` consecutive frames that all show a face, in order; the clip must be that long."""
    return np.flatnonzero(sliding_window_view(found, length).all(axis=1))


def shown_frames(found: ndarray, most: int) -> ndarray:
    """The first frames, at most `most`, of the longest run with a face; half of it or more is left for references."""
    length = longest_run(found)
    start = window_starts(found, length)[0]
    return start + np.arange(min(most, (length + 1) // 2))


def sample_references(rng: np.random.Generator, found: ndarray, excluded: ndarray, count: int) -> ndarray:
    """Draws `count` frames with a face that are not in `excluded`; frames repeat only if there are too few.

    Raises:
        ValueError: there is no frame to draw from.
    """
    candidates = np.setdiff1d(np.flatnonzero(found), excluded)
    return rng.choice(candidates, count, replace=len(candidates) < count)
