"""What any method has to beat.

In place of stage 1: static lips, lips at the wrong time, a ridge regression. In place of stage 2: a pasted reference.
All keep the pose of every frame.
"""

from collections.abc import Iterable
from typing import Any

import cv2
import numpy as np
from scipy import linalg
from skimage.transform import estimate_transform

from face.landmarks import CONTENT, LIP_SLICE, POSE_SLICE, with_content
from media.audio import COLUMNS_PER_SECOND, FPS, N_MELS, SILENCE
from models.landmark_generator import LandmarkGenerator
from models.renderer import Renderer
from networks import DubConfig, Networks, References

CANDIDATES = 25  # references that the nearest is chosen from
HEARD = 52  # mel columns of the ridge regression, 0.65 s around the frame
POOLED = 2  # columns averaged into one of its inputs
PENALTY = 0.3  # of the ridge, over the mean variance of its inputs


def moved(points: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Points (..., M, 2) after the similarity (turn, scale, shift) that brings `source` (..., K, 2) nearest to `target`
    (..., K, 2), by least squares in closed form; leading axes broadcast."""
    z, a, b = (np.asarray(p, np.float64) @ (1, 1j) for p in (points, source, target))
    middle = a.mean(-1, keepdims=True)
    a = a - middle
    turn = (a.conj() * b).sum(-1, keepdims=True) / (np.abs(a) ** 2).sum(-1, keepdims=True).clip(1e-12)
    z = turn * (z - middle) + b.mean(-1, keepdims=True)
    return np.stack([z.real, z.imag], -1)


def moved_content(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Jaw and lips (..., 57, 2) of faces `source` (..., 131, 2), moved by the similarity that takes their pose to
    `target`'s. Both in pixels of their frames, or in crop coordinates; leading axes broadcast."""
    return moved(source[..., CONTENT, :], source[..., POSE_SLICE, :], target[..., POSE_SLICE, :])


def static_lips(landmarks: np.ndarray, references: np.ndarray) -> np.ndarray:
    """A mouth that never moves: mean jaw, lips of `references` (N, 131, 2) on the poses of `landmarks` (F, 131, 2).

    Each reference is moved by the similarity that brings its pose to the frame's. In pixels or crop coordinates.
    """
    return with_content(landmarks, moved_content(references[None], landmarks[:, None]).mean(1))


def half_a_clip_later(values: np.ndarray) -> np.ndarray:
    """Of every frame (F, ...), the values of another moment of the clip."""
    return np.roll(values, -(len(values) // 2), axis=0)


def heard_around(mel: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """The mel (80, C) around frames (F,) as inputs of the ridge regression: (F, 80 * HEARD / POOLED)."""
    padded = np.pad(mel, ((0, 0), (HEARD, HEARD)), constant_values=SILENCE)
    columns = frames[:, None] * COLUMNS_PER_SECOND // FPS + HEARD // 2 + np.arange(HEARD)  # (F, HEARD) of the padded
    windows = padded[:, columns.clip(max=padded.shape[1] - 1)]  # (80, F, HEARD)
    windows = windows.reshape(N_MELS, len(frames), HEARD // POOLED, POOLED).mean(-1)
    return windows.transpose(1, 0, 2).reshape(len(frames), -1)


class Ridge:
    """Linear regression of the mouth's change against static lips, in crop coordinates, from 0.65 s of mel."""

    def __init__(self, examples: Iterable[tuple[np.ndarray, np.ndarray]]) -> None:
        """`examples`: by clip, inputs of `heard_around` (F, D) and changes (F, K). Clips are not kept."""
        count, size, sums, products = 0, 0, np.zeros(1), np.zeros(1)
        for inputs, changes in examples:
            row = np.concatenate([inputs, changes], axis=1, dtype=np.float64)
            count, size, sums, products = count + len(row), inputs.shape[1], sums + row.sum(0), products + row.T @ row
        mean = sums / count
        covariance = products / count - np.outer(mean, mean)
        inner = covariance[:size, :size]
        inner[np.diag_indices(size)] += PENALTY * np.trace(inner) / size
        self.weight = linalg.solve(inner, covariance[:size, size:], assume_a="pos")  # (D, K)
        self.bias = mean[size:] - mean[:size] @ self.weight

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        """(F, D) -> (F, K)."""
        return inputs @ self.weight + self.bias


def paste_nearest(target: np.ndarray, wanted: np.ndarray, crops: np.ndarray, references: np.ndarray) -> np.ndarray:
    """The reference with the nearest mouth, aligned by a similarity, in the lower half of the target's face crop.

    Mouths are compared after the similarity, which is fitted to the whole face.

    Args:
        target: (S, S, 3) uint8 face crop; only its upper half is used.
        wanted: (131, 2) landmarks in crop coordinates.
        crops: (N, S, S, 3) of the references.
        references: (N, 131, 2) their landmarks, in crop coordinates.
    """
    size = target.shape[0]
    wanted, references = (x * size - 0.5 for x in (wanted, references))  # the first pixel's centre is at 0
    mouths = moved(references[:, LIP_SLICE], references, wanted)
    best = int(np.linalg.norm(mouths - wanted[LIP_SLICE], axis=-1).mean(1).argmin())
    matrix = estimate_transform("similarity", references[best], wanted).params[:2]
    aligned = cv2.warpAffine(crops[best], matrix, (size, size), borderMode=cv2.BORDER_REPLICATE)
    return np.concatenate([target[: size // 2], aligned[size // 2 :]])


class StaticLips(Networks):
    """Draws a mouth that never moves: what stage 2 alone makes of a face."""

    def predict_landmarks(
        self, landmarks_in_crop: np.ndarray, references: np.ndarray, mel: np.ndarray, fps: float = FPS, first: int = 0
    ) -> np.ndarray:
        return static_lips(landmarks_in_crop, references)


class NearestReference(Networks):
    """Stage 1 and, in place of stage 2, the aligned nearest of `CANDIDATES` references."""

    def __init__(self, landmark_generator: LandmarkGenerator, renderer: Renderer, config: DubConfig) -> None:
        super().__init__(landmark_generator, renderer, config)
        self.num_candidates = CANDIDATES

    def draw_faces(
        self, faces: np.ndarray, landmarks_in_crop: np.ndarray, sketches: Any, references: References, mel: Any
    ) -> tuple[np.ndarray, np.ndarray]:
        drawn = [
            paste_nearest(face, landmarks, references.images, references.landmarks_in_crop)
            for face, landmarks in zip(faces, landmarks_in_crop, strict=True)
        ]
        drawn = np.stack(drawn).astype(np.float32) / 255
        return drawn, drawn
