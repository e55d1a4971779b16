"""Arithmetic of frame times: which source frame each output frame shows, and which frames surround it."""

import math
from array import array
from bisect import bisect_left, bisect_right
from fractions import Fraction

import numpy as np
from numpy import ndarray

from media.audio import FPS

_ROUNDING = 1e-8  # frames; tolerance for floating-point times


class Timeline:
    """The source frames of a video in display order, resampled to a constant rate.

    Output frame k shows the source frame nearest in time to k / rate (the later one in a tie), held through gaps.
    Times of source frames are in ticks of the file's clock.

    Args:
        time_base: seconds of a tick.
        source_rate: source frames a second, on average.
        shortest: minimum duration of a source frame in seconds.
        rate: output frames a second.
        zero: seconds on the file's clock at which output frame 0 is shown.

    Attributes:
        ticks: time of each source frame.
        keys: positions of the key frames, where decoding can start.
        end: ticks at which the last source frame ends.
    """

    def __init__(
        self,
        time_base: Fraction,
        source_rate: Fraction,
        shortest: Fraction,
        rate: Fraction,
        zero: Fraction,
    ):
        interval = 1 / source_rate  # seconds
        first = zero + min(interval, 1 / rate) / 2  # seconds until which a source frame is shown in output frame 0
        self._regular = max(1, round(interval / time_base))  # ticks from one frame to the next
        self._shortest = max(1, round(shortest / time_base))  # ticks
        self._frames_per_tick = float(time_base * rate)
        self._offset = float(first * rate) + _ROUNDING  # frames
        self.ticks = array("q")
        self.keys = [0]
        self.end = 0

    def append(self, ticks: int | None, is_key: bool, duration: float) -> None:
        """Appends a source frame; if its time is missing or not after the last frame's, one frame after that.

        Only the last frame's duration (ticks) matters; 0 or less means unknown.
        """
        if not self.ticks:
            ticks = ticks or 0
        elif ticks is None or ticks <= self.ticks[-1]:
            ticks = self.ticks[-1] + self._regular
        if is_key and self.ticks:
            self.keys.append(len(self.ticks))
        self.ticks.append(ticks)
        if duration <= 0:
            duration = self._regular
        self.end = ticks + round(max(duration, self._shortest))

    def find(self, ticks: int | None) -> int | None:
        """The position of the source frame with exactly this time, if there is one."""
        if ticks is None:
            return None
        position = bisect_left(self.ticks, ticks)
        if position == len(self.ticks) or self.ticks[position] != ticks:
            return None
        return position

    def reaches(self, output_frame: int) -> bool:
        """Whether no later source frame can be shown in this output frame."""
        return bool(self.ticks) and self.ticks[-1] > self._shown_until(output_frame)

    def source(self, output_frame: int) -> int:
        """The position of the source frame that this output frame shows."""
        return max(0, bisect_right(self.ticks, self._shown_until(output_frame)) - 1)

    def key_before(self, position: int) -> int:
        """The position of the key frame from which the frame at `position` can be decoded."""
        return self.keys[bisect_right(self.keys, position) - 1]

    @property
    def num_output_frames(self) -> int:
        return max(1, math.ceil(self.end * self._frames_per_tick - self._offset))

    def _shown_until(self, output_frame: int) -> float:
        """The latest time, in ticks, of a source frame that this output frame or an earlier one shows."""
        return (output_frame + self._offset) / self._frames_per_tick


def ping_pong(length: int, count: int) -> ndarray:
    """(count,) source frames that run forward, backward, forward, ... so that there is no jump."""
    forward = np.arange(length)
    backward = np.arange(length - 2, 0, -1)
    return np.resize(np.concatenate([forward, backward]), count)


def evenly_spaced(count: int, most: int) -> ndarray:
    """At most `most` of the positions 0 to `count` - 1, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(int))


def window_frames(num_frames: int, window: int, fps: float) -> ndarray:
    """(num_frames, window) frames of the window around each frame, 1/25 s apart at any frame rate.

    Windows that reach past an end repeat the frame there.
    """
    offsets = (np.arange(window) - window // 2) * fps / FPS
    frames = np.rint(np.arange(num_frames)[:, None] + offsets)
    return np.clip(frames, 0, num_frames - 1).astype(int)
