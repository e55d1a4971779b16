"""Which frames of a video an output shows, and which frames surround each: pure index functions."""

import numpy as np

from media.audio import FPS


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
