"""How well the lips follow the sound and the original's lips: landmark distances, openness, silence, jitter.

Landmarks are (F, K, 2), x then y. Frames without a face hold NaN and count for nothing; the caller counts them.
Openness is that of the whole mouth, a mean along the lips: a network can move their middle alone.
SyncNet's confidence and distance are in syncnet.py.
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from face.crop import to_crop
from face.landmarks import INNER_LIPS, LIP_SLICE, OUTER_LIPS
from face.references import lip_openness
from media.audio import COLUMNS_PER_SECOND, FPS, SILENCE

CLOSED = 0.01  # mean gap between the lips, in heights of the face box, below which they look closed
SILENT_ABOVE_FLOOR = 1.0  # mel units (12.5 dB) above the quietest moments that still count as silence
SILENT_BELOW_SPEECH = 1.0  # mel units that silence is at least below the loudest: steady noise, speech without a pause
SILENT_FRAMES = 3  # frames of silence on either side of a silent frame: a mouth needs time to close


def nan_mean(values: np.ndarray | Sequence[float]) -> float:
    """The mean without NaN; NaN, and no warning, where nothing is left."""
    kept = np.asarray(values, dtype=np.float64)
    kept = kept[np.isfinite(kept)]
    return float(kept.mean()) if kept.size else float("nan")


def landmark_distance(
    output: np.ndarray, target: np.ndarray, scale: np.ndarray | float = 1.0, norm: str = "l2"
) -> np.ndarray:
    """Mean distance of the points of each frame over `scale`, (F,).

    With landmarks in crop coordinates [0, 1] and scale 1 this is LipLMD normalised by the crop's side (default of the
    tables); with landmarks in pixels and scale = `interocular` (F,) by the face; with pixels and 1, in pixels.
    norm "l2": Euclidean distance of a point; "l1": mean absolute difference of a coordinate.
    """
    difference = np.asarray(output, dtype=np.float64) - target
    distance = np.linalg.norm(difference, axis=-1) if norm == "l2" else np.abs(difference).mean(-1)
    return distance.mean(-1) / scale


def interocular(left_eye: np.ndarray, right_eye: np.ndarray) -> np.ndarray:
    """Distance of the eyes' centres, (F,), from the points of either eye (F, K, 2)."""
    return np.linalg.norm(left_eye.mean(-2) - right_eye.mean(-2), axis=-1)


def correlation(output: np.ndarray, target: np.ndarray) -> float:
    """Pearson correlation over time of two signals (F,); NaN where one of them never changes."""
    both = np.stack([output, target])[:, np.isfinite(output) & np.isfinite(target)]
    changes = both.size and both.std(1).min() > 1e-9
    return float(np.corrcoef(both)[0, 1]) if changes else float("nan")


def articulation_ratio(output: np.ndarray, target: np.ndarray) -> float:
    """Standard deviation over time of lip openness (F,), output over original: 1 is as lively as the real mouth."""
    spread = np.nanstd(target) if np.isfinite(target).any() else 0.0
    return float(np.nanstd(output) / spread) if spread > 1e-9 and np.isfinite(output).any() else float("nan")


def closed_f1(output: np.ndarray, target: np.ndarray) -> float:
    """F1 score of the frames in which the lips are closed, from the gaps between them (F,) in heights of the face box.

    1: they close in the same frames as the original's, in b, m, p and between sentences; NaN where those never close.
    """
    both = np.isfinite(output) & np.isfinite(target)
    closed, truly = output[both] < CLOSED, target[both] < CLOSED
    return float(2 * (closed & truly).sum() / (closed.sum() + truly.sum())) if truly.any() else float("nan")


def silent_frames(mel: np.ndarray, num_frames: int) -> np.ndarray:
    """Which frames (F,) are silent for `SILENT_FRAMES` on either side, from the log-mel (80, C) of the sound."""
    level = mel.mean(0) if mel.shape[1] else np.full(1, SILENCE)
    quiet, loud = np.percentile(level, (2, 95))
    limit = max(SILENCE, min(quiet, loud - SILENT_BELOW_SPEECH - SILENT_ABOVE_FLOOR)) + SILENT_ABOVE_FLOOR
    starts = np.arange(num_frames + 1) * COLUMNS_PER_SECOND // FPS
    padded = np.pad(level, (0, max(0, starts[-1] - len(level))), constant_values=SILENCE)
    loudest = np.maximum.reduceat(padded[: starts[-1]], starts[:-1])  # (F,)
    return np.logical_not(ndimage.binary_dilation(loudest > limit, iterations=SILENT_FRAMES))


def motion_in_silence(openness: np.ndarray, silent: np.ndarray) -> float:
    """Mean absolute change of the lip openness (F,) a second within silence; NaN without two silent frames in a row."""
    change = np.abs(np.diff(openness)) * FPS
    return nan_mean(change[silent[1:] & silent[:-1]])


def jitter(landmarks: np.ndarray) -> float:
    """Mean absolute second difference in time of landmarks (F, K, 2), in their own unit."""
    return nan_mean(np.abs(np.diff(landmarks, n=2, axis=0)))


def motion(
    landmarks: np.ndarray, boxes: np.ndarray, silent: np.ndarray, true_landmarks: np.ndarray, true_boxes: np.ndarray,
    in_step: bool = True,
) -> dict[str, float]:  # fmt: skip
    """Column of the tables -> value: motion in silence, and how like the original's motion this is.

    Args:
        landmarks: (F, 131, 2) in pixels of the frame.
        boxes: (F, 4) of the faces.
        silent: (F,) from `silent_frames`.
        true_landmarks: (F, 131, 2) of the original.
        true_boxes: (F, 4) of the original.
        in_step: the original says the same. If not, as in dubbing, it may also have another number of frames, and only
            the spread and the jitter of the motion are compared.
    """
    faces = (landmarks, boxes), (true_landmarks, true_boxes)
    openness = [lip_openness(points, box[:, 3] - box[:, 1], OUTER_LIPS) for points, box in faces]
    gaps = [lip_openness(points, box[:, 3] - box[:, 1], INNER_LIPS) for points, box in faces]
    shake, steady = (jitter(to_crop(*face)[:, LIP_SLICE]) for face in faces)
    scores = {
        "silence": motion_in_silence(openness[0], silent),
        "articulation": articulation_ratio(*openness),
        "jitter": shake / steady if steady else float("nan"),
    }
    return scores | ({"openness r": correlation(*openness), "closed F1": closed_f1(*gaps)} if in_step else {})
