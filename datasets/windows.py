"""Which frames make a sample or a video: pure index functions. `found` (F,) says in which frames there is a face."""

import numpy as np

from media.audio import FPS

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


def ping_pong(length: int, wanted: int) -> np.ndarray:
    """(wanted,) source frame of every output frame: forward, backward, forward, ... so that no jump is seen."""
    there_and_back = np.concatenate([np.arange(length), np.arange(length - 2, 0, -1)])
    return np.resize(there_and_back, wanted)


def window_frames(num_frames: int, window: int, fps: float) -> np.ndarray:
    """(num_frames, window) frames of the window around each frame, 1/25 s apart, whatever the frame rate.

    Ends repeat the edge frame.
    """
    offsets = (np.arange(window) - window // 2) * fps / FPS
    return np.clip(np.rint(np.arange(num_frames)[:, None] + offsets), 0, num_frames - 1).astype(int)
