"""Which frames make a sample or a video: pure index functions. `found` (F,) says in which frames there is a face."""

import numpy as np

MIN_FRAMES = 25  # frames with a face that a clip needs to be trained on


def longest_run(found: np.ndarray) -> int:
    """Length of the longest run of frames with a face."""
    edges = np.flatnonzero(np.diff(found, prepend=False, append=False))
    return int((edges[1::2] - edges[::2]).max(initial=0))


def window_starts(found: np.ndarray, length: int) -> np.ndarray:
    """Every start of `length` consecutive frames that all show a face, in order; empty if there is none."""
    missing = np.concatenate([[0], np.cumsum(~found)])
    return np.flatnonzero(missing[length:] == missing[:-length]) if length <= len(found) else np.empty(0, dtype=int)


def sample_references(rng: np.random.Generator, found: np.ndarray, excluded: np.ndarray, count: int) -> np.ndarray:
    """Draws `count` frames with a face, none of them in `excluded`, without repeating any unless there are too few.

    Raises:
        ValueError: no frame is left to draw from.
    """
    free = found.copy()
    free[excluded] = False
    candidates = np.flatnonzero(free)
    return rng.choice(candidates, count, replace=len(candidates) < count)
