"""Measures of the quality of footage, and filters that use them. All filters are off by default."""

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy import ndarray

from checkpoints import registry
from face.crop import sides
from face.tracking import FaceTrack
from media.audio import FPS, SAMPLE_RATE
from runtime.command_line import UserError

SILENT = 1e-3  # root mean square of the samples of a frame, -60 dB; quieter frames are silent


@dataclass(frozen=True)
class Filters:
    """Limits that reject a clip. The report has every measure except the offset even if no filter is set."""

    min_found: float | None = None
    """Smallest share of frames with a face."""
    max_several: float | None = None
    """Largest share of frames with several faces."""
    min_face: float | None = None
    """Smallest median, over the clip, of the shorter side of the face box, in pixels."""
    max_cuts: int | None = None
    """Largest number of scene cuts."""
    max_silence: float | None = None
    """Largest share of silent frames (below -60 dB)."""
    min_sharpness: float | None = None
    """Smallest median, over the clip, of the variance of the face crop's Laplacian; below about 20 it is blurred."""

    max_offset: int | None = None
    """Largest offset between sound and lips in frames, in either direction; needs SyncNet's weights in checkpoints/."""

    def reject(self, measures: dict[str, float]) -> str | None:
        """Returns the first filter that the measures fail, such as "min_face", or None."""
        for name, limit in vars(self).items():
            if limit is None:
                continue
            kind, measure = name.split("_")
            excess = measures[measure] - limit
            if kind == "min":
                excess = -excess
            if excess > 0:
                return name
        return None


def measure(track: FaceTrack, silent: ndarray, sharpness: list[float]) -> dict[str, float]:
    """Measures by name, rounded for reading: see `Filters` for their meaning.

    Args:
        track: of F frames, at least one of them with a face.
        silent: (n,) bool, see `silent_frames`.
        sharpness: of each crop, see `sharpness_of`.
    """
    shorter_sides = sides(track.boxes[track.found]).min(axis=1)
    silent = silent[: len(track.found)]
    silence = silent.mean() if len(silent) else 1.0
    return {
        "found": round(track.found.mean(), 4),
        "several": round((track.num_faces > 1).mean(), 4),
        "face": np.median(shorter_sides),
        "cuts": int(track.cuts.sum()),
        "silence": round(silence, 4),
        "sharpness": round(float(np.median(sharpness)), 1),
    }


@functools.cache
def sync_scorer() -> Callable[[Iterable[ndarray], ndarray], float]:
    """Returns a function of a face's frames and sound (S,) that measures their absolute offset in frames; 0 if too few.

    Raises:
        UserError: SyncNet's weights are missing or damaged.
    """
    from metrics import syncnet  # needs PyTorch, which is slow to import

    path = registry.find("syncnet")
    if path is None:
        raise UserError(registry.how_to_get("syncnet"))
    network = syncnet.load(path)

    def offset(frames, wav):
        scores = syncnet.score(*syncnet.embed(network, frames, wav))
        return abs(scores.get("offset", 0.0))

    return offset


def sharpness_of(face: ndarray) -> float:
    """Variance of the Laplacian of a face crop (S, S, 3) uint8."""
    grey = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY)
    return float(cv2.Laplacian(grey, cv2.CV_16S).var())


def silent_frames(wav: ndarray) -> ndarray:
    """(F,) bool: whether each complete frame, at 25 fps, of a sound (S,) is silent."""
    samples = SAMPLE_RATE // FPS
    frames = wav[: len(wav) // samples * samples].reshape(-1, samples)
    energy = np.einsum("fs,fs->f", frames, frames)
    return np.sqrt(energy / samples) < SILENT
