"""Figures that tell good footage from bad, and the filters that act on them. All filters are off by default."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from face.tracking import FaceTrack
from media.audio import FPS, SAMPLE_RATE

SILENT = 1e-3  # root mean square of the samples of one frame: -60 dB


@dataclass(frozen=True)
class Filters:
    """Reject clips by these; every figure is in the report, whether or not a filter is set."""

    min_found: float | None = None  # Share of frames with a face that a clip needs.
    max_several: float | None = None  # Share of frames that may show several faces.
    min_face: float | None = None  # Pixels that the shorter side of the face box needs, as a median.
    max_cuts: int | None = None  # Number of scene cuts that a clip may have.
    max_silence: float | None = None  # Share of frames that may be silent (below -60 dB).
    # Variance of the face crop's Laplacian, as a median: below about 20 a face is blurred.
    min_sharpness: float | None = None
    # SyncNet's public weights, to estimate by how many frames sound and lips are apart.
    syncnet: Path | None = None
    max_offset: int | None = None  # Frames at 25 fps that they may be apart; needs --filters.syncnet.
    min_confidence: float | None = None  # SyncNet's confidence (LSE-C) that a clip needs; needs --filters.syncnet.


def measure(track: FaceTrack, silent: np.ndarray, sharpness: list[float]) -> dict[str, float]:
    """The figures by name, rounded so that they read well: see `Filters` for their meaning.

    Args:
        track: of F frames, at least one of them with a face.
        silent: (n,) bool, see `silent_frames`.
        sharpness: of each crop, see `sharpness_of`.
    """
    sides = (track.boxes[track.found, 2:] - track.boxes[track.found, :2]).min(axis=1)
    silent = silent[: len(track.found)]
    return {
        "found": round(float(track.found.mean()), 4),
        "several": round(float((track.several > 1).mean()), 4),
        "face": float(np.median(sides)),
        "cuts": int(track.cuts.sum()),
        "silence": round(float(silent.mean()), 4) if len(silent) else 1.0,
        "sharpness": round(float(np.median(sharpness)), 1),
    }


def sharpness_of(face: np.ndarray) -> float:
    """Variance of the Laplacian of a face crop (S, S, 3) uint8."""
    return float(cv2.meanStdDev(cv2.Laplacian(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY), cv2.CV_16S))[1].item() ** 2)


def silent_frames(wav: np.ndarray) -> np.ndarray:
    """Sound (S,) -> (F,) bool for all whole frames at 25 fps."""
    samples = SAMPLE_RATE // FPS
    frames = wav[: len(wav) // samples * samples].reshape(-1, samples)
    return np.sqrt(np.einsum("fs,fs->f", frames, frames) / samples) < SILENT


@functools.cache
def sync_scorer(path: Path) -> Any:
    """What takes a clip's sound (S,), then its frames, and tells how far they are apart, by the weights of a file.

    Raises UserError if they are not SyncNet's.
    """
    from metrics import syncnet  # a room that is entered only where such a file is given

    return functools.partial(syncnet.SyncScorer, syncnet.load(path))


def rejected_by(figures: dict[str, float], filters: Filters) -> str | None:
    """The first filter that the figures don't pass, by the name of its flag, or None."""
    for figure, value in figures.items():
        lowest, highest = getattr(filters, f"min_{figure}", None), getattr(filters, f"max_{figure}", None)
        if lowest is not None and value < lowest:
            return f"min_{figure}"
        if highest is not None and abs(value) > highest:
            return f"max_{figure}"
    return None
