"""Lip motion metrics: landmark distance, openness, closures, motion in silence, jitter.

Landmarks are (F, K, 2), x then y. Frames without a face hold NaN and are ignored; the caller counts them.
Openness is measured over the whole mouth, because a network can move the middle of the lips alone.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy import ndarray
from scipy import ndimage

from face.crop import sides, to_crop
from face.landmarks import INNER_LIPS, LIP_SLICE, OUTER_LIPS
from face.references import lip_openness
from media.audio import COLUMNS_PER_SECOND, FPS, SILENCE

CLOSED = 0.01  # lips with a smaller mean gap, relative to the face box's height, are closed
SILENCE_MARGIN = 1.0  # mel units (12.5 dB) above the quietest moments that still count as silence
SPEECH_MARGIN = 1.0  # mel units that silence must be below the loudest moments, so that steady noise is not silence
SILENT_FRAMES = 3  # silent frames required on either side of a silent frame: a mouth needs time to close


class FaceSequence(NamedTuple):
    """One face over F frames."""

    landmarks_in_frame: ndarray  # (F, 131, 2), pixels
    boxes: ndarray  # (F, 4)

    @property
    def landmarks_in_crop(self) -> ndarray:
        """(F, 131, 2), relative to the boxes."""
        return to_crop(self.landmarks_in_frame, self.boxes)

    def openness(self, pairs: ndarray) -> ndarray:
        """Mean distance between paired lip landmarks, `pairs` (K, 2), relative to the height of the box: (F,)."""
        heights = sides(self.boxes)[:, 1]
        return lip_openness(self.landmarks_in_frame, heights, pairs)


def nan_mean(values: ndarray | Sequence[float]) -> float:
    """The mean of the finite values; NaN without a warning if there are none."""
    values = np.asarray(values, dtype=np.float64)
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else np.nan


def landmark_distance(output: ndarray, target: ndarray) -> ndarray:
    """Mean Euclidean distance between landmarks (F, K, 2) in each frame, in their unit: (F,).

    In crop coordinates [0, 1] this is LipLMD normalised by the crop's side.
    """
    difference = np.subtract(output, target, dtype=np.float64)
    return np.linalg.norm(difference, axis=-1).mean(axis=-1)


def _finite_pairs(output: ndarray, target: ndarray) -> ndarray:
    """(2, n): the values of two signals (F,) where both are finite."""
    both = np.stack([output, target])
    return both[:, np.isfinite(both).all(axis=0)]


def correlation(output: ndarray, target: ndarray) -> float:
    """Pearson correlation over time of two signals (F,); NaN if one of them is constant."""
    both = _finite_pairs(output, target)
    if not both.size or both.std(axis=1).min() <= 1e-9:
        return np.nan
    return float(np.corrcoef(both)[0, 1])


def ratio(output: float, target: float) -> float:
    """Output over original; NaN if the original's value is NaN or zero."""
    return output / target if target > 1e-9 else np.nan


def articulation_ratio(output: ndarray, target: ndarray) -> float:
    """Standard deviation over time of lip openness (F,), output over original; 1 is as lively as the real mouth."""
    return ratio(_spread(output), _spread(target))


def _spread(values: ndarray) -> float:
    return math.sqrt(nan_mean((values - nan_mean(values)) ** 2))


def closed_f1(output: ndarray, target: ndarray) -> float:
    """F1 score of the frames with closed lips, from the gap between the lips (F,) relative to the box's height.

    1 means that the lips close in the same frames as the original's: at b, m, p and between sentences. NaN if the
    original lips never close.
    """
    closed = _finite_pairs(output, target) < CLOSED
    if not closed[1].any():
        return np.nan
    common = closed.all(axis=0).sum()
    return float(2 * common / closed.sum())


def silent_frames(mel: ndarray, num_frames: int) -> ndarray:
    """(F,) bool: frames that are silent, as are `SILENT_FRAMES` on either side, by the sound's log-mel (80, C)."""
    level = mel.mean(axis=0) if mel.shape[1] else np.full(1, SILENCE)
    quiet, loud = np.percentile(level, (2, 95))
    floor = min(quiet, loud - SPEECH_MARGIN - SILENCE_MARGIN)
    threshold = max(SILENCE, floor) + SILENCE_MARGIN
    starts = np.arange(num_frames + 1) * COLUMNS_PER_SECOND // FPS
    padded = np.pad(level, (0, starts[-1]), constant_values=SILENCE)
    loudest = np.maximum.reduceat(padded, starts)[:-1]  # (F,)
    return np.logical_not(ndimage.binary_dilation(loudest > threshold, iterations=SILENT_FRAMES))


def motion_in_silence(openness: ndarray, silent: ndarray) -> float:
    """Mean absolute change of lip openness (F,) per second in silence; NaN without two silent frames in a row."""
    change = np.abs(np.diff(openness)) * FPS
    return nan_mean(change[silent[1:] & silent[:-1]])


def jitter(landmarks: ndarray) -> float:
    """Mean absolute second difference over time of landmarks (F, K, 2), in their unit."""
    return nan_mean(np.abs(np.diff(landmarks, n=2, axis=0)))


def motion_scores(
    output: FaceSequence,
    target: FaceSequence,
    silent: ndarray,
    same_speech: bool = True,
) -> dict[str, float]:
    """Compares the lip motion of an output with the original's: table column -> value.

    Args:
        output: the output's F frames.
        target: the original's frames.
        silent: (F,) from `silent_frames`.
        same_speech: False in dubbing, where the original says something else and may have another number of frames;
            then only the spread and the jitter of the motion are compared.
    """
    openness = output.openness(OUTER_LIPS)
    true_openness = target.openness(OUTER_LIPS)
    lips = output.landmarks_in_crop[:, LIP_SLICE]
    true_lips = target.landmarks_in_crop[:, LIP_SLICE]
    scores = {
        "silence": motion_in_silence(openness, silent),
        "articulation": articulation_ratio(openness, true_openness),
        "jitter": ratio(jitter(lips), jitter(true_lips)),
    }
    if same_speech:
        scores["LipLMD"] = nan_mean(landmark_distance(lips, true_lips))
        scores["openness r"] = correlation(openness, true_openness)
        gap = output.openness(INNER_LIPS)
        scores["closed F1"] = closed_f1(gap, target.openness(INNER_LIPS))
    return scores
