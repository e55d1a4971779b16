"""Figures that tell good footage from bad, and the filters that act on them. All filters are off by default."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from face.tracking import FaceTrack
from media.audio import FPS, SAMPLE_RATE

if TYPE_CHECKING:
    from evaluation.lip_sync_net import SyncNet, SyncScorer

CUT = 30.0  # grey levels (of 255) that a small picture changes by on average from frame to frame at a scene cut
SILENT = 1e-3  # root mean square of the samples of one frame: -60 dB
THUMBNAIL = (32, 32)


@dataclass(frozen=True)
class Filters:
    """Reject clips by these; every figure is in the report, whether or not a filter is set."""

    min_found: float | None = None
    """Share of frames with a face that a clip needs."""
    max_several: float | None = None
    """Share of frames that may show several faces."""
    min_face: float | None = None
    """Pixels that the shorter side of the face box needs, as a median."""
    max_cuts: int | None = None
    """Number of scene cuts that a clip may have."""
    max_silence: float | None = None
    """Share of frames that may be silent (below -60 dB)."""
    min_sharpness: float | None = None
    """Variance of the face crop's Laplacian, as a median: below about 20 a face is blurred."""
    syncnet: Path | None = None
    """SyncNet's public weights, to estimate by how many frames sound and lips are apart."""
    max_offset: int | None = None
    """Frames at 25 fps that they may be apart; needs --filters.syncnet."""
    min_confidence: float | None = None
    """SyncNet's confidence (LSE-C) that a clip needs; needs --filters.syncnet."""


class Measures:
    """Gathers the figures of one clip while its frames go by."""

    def __init__(self) -> None:
        self._last: np.ndarray | None = None
        self._cuts: list[bool] = []
        self._sharpness: list[float] = []

    def see_frame(self, frame: np.ndarray) -> None:
        """Takes the next whole frame (H, W, 3) uint8."""
        step = max(1, min(frame.shape[:2]) // (4 * THUMBNAIL[0]))  # enough to average over, and cheap for large frames
        thumbnail = cv2.resize(frame[::step, ::step], THUMBNAIL, interpolation=cv2.INTER_AREA).astype(np.int16)
        self._cuts.append(self._last is not None and np.abs(thumbnail - self._last).mean() > CUT)
        self._last = thumbnail

    def see_face(self, face: np.ndarray) -> None:
        """Takes the next face crop (S, S, 3) uint8."""
        grey = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY)
        self._sharpness.append(float(cv2.Laplacian(grey, cv2.CV_32F).var()))

    def figures(self, track: FaceTrack, silent: np.ndarray) -> dict[str, float]:
        """All figures by name, rounded so that they read well: see `Filters` for their meaning."""
        sides = (track.boxes[track.found, 2:] - track.boxes[track.found, :2]).min(axis=1)
        silent = silent[: len(track.found)]
        return {
            "found": round(float(track.found.mean()), 4),
            "several": round(float((track.several > 1).mean()), 4),
            "face": float(np.median(sides)),
            "cuts": int((track.cuts | np.array(self._cuts)).sum()),
            "silence": round(float(silent.mean()), 4) if len(silent) else 1.0,
            "sharpness": round(float(np.median(self._sharpness)), 1),
        }


def silent_frames(wav: np.ndarray) -> np.ndarray:
    """Sound (S,) -> (F,) bool for all whole frames at 25 fps."""
    samples = SAMPLE_RATE // FPS
    frames = wav[: len(wav) // samples * samples].reshape(-1, samples)
    return np.sqrt(np.einsum("fs,fs->f", frames, frames) / samples) < SILENT


@functools.cache
def _syncnet(path: Path) -> "SyncNet":
    from evaluation.lip_sync_net import load

    return load(path)


def sync_scorer(filters: Filters, wav: np.ndarray) -> "SyncScorer | None":
    """Takes the mouth's surroundings of each frame, where a SyncNet file is given."""
    if filters.syncnet is None:
        return None
    from evaluation.lip_sync_net import SyncScorer

    return SyncScorer(_syncnet(filters.syncnet), wav)


def fit_mouth(frame: np.ndarray, box: np.ndarray, found: bool) -> np.ndarray:
    """What SyncNet sees of a frame: the face's surroundings, or all of it where there is no face."""
    from evaluation.lip_sync_net import fit_frame, fit_track

    return fit_track(frame, box) if found else fit_frame(frame)


def rejected_by(figures: dict[str, float], filters: Filters) -> str | None:
    """The first filter that the figures don't pass, by the name of its flag, or None."""
    for figure, value in figures.items():
        lowest, highest = getattr(filters, f"min_{figure}", None), getattr(filters, f"max_{figure}", None)
        if (lowest is not None and value < lowest) or (highest is not None and abs(value) > highest):
            return f"min_{figure}" if lowest is not None else f"max_{figure}"
    return None
