"""What any method has to beat: static lips, lips at the wrong time, a ridge regression, a pasted reference.

The first three guess landmarks, as stage 1 does; the last guesses pixels, as stage 2 does. All keep the pose of every
frame.
"""

from collections.abc import Iterable

import cv2
import numpy as np
from scipy import linalg

from evaluation.geometry import fit_similarity, move, similarity_matrix
from face.landmarks import JAW_SLICE, LIP_SLICE, POSE_SLICE
from media.audio import COLUMNS_PER_SECOND, FPS, N_MELS, SILENCE

CONTENT = slice(JAW_SLICE.start, LIP_SLICE.stop)  # jaw and lips: what the pose does not tell
HEARD = 52  # mel columns of the ridge regression, 0.65 s around the frame
POOLED = 2  # columns averaged into one of its inputs
PENALTY = 0.3  # of the ridge, over the mean variance of its inputs


def moved_content(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Jaw and lips (..., 57, 2) of faces `source` (..., 131, 2), moved as their pose has to move to match `target`'s.

    The move is a similarity. Both in pixels of their frames; leading axes broadcast.
    """
    scale, shift = fit_similarity(source[..., POSE_SLICE, :], target[..., POSE_SLICE, :])
    return move(source[..., CONTENT, :], scale, shift)


def with_content(landmarks: np.ndarray, content: np.ndarray) -> np.ndarray:
    """Faces (F, 131, 2) with other jaws and lips (F, 57, 2)."""
    result = np.array(landmarks, dtype=np.float32)
    result[:, CONTENT] = content
    return result


def static_lips(landmarks: np.ndarray, references: np.ndarray) -> np.ndarray:
    """A mouth that never moves: mean jaw, lips of `references` (N, 131, 2) on the poses of `landmarks` (F, 131, 2)."""
    return with_content(landmarks, moved_content(references[None], landmarks[:, None]).mean(1))


def shifted_lips(landmarks: np.ndarray) -> np.ndarray:
    """The right mouth at the wrong time: that of half a clip later (F, 131, 2), moved onto the frame's pose."""
    return with_content(landmarks, moved_content(np.roll(landmarks, -(len(landmarks) // 2), axis=0), landmarks))


def heard_around(mel: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """The mel (80, C) around frames (F,) as inputs of the ridge regression: (F, 80 * HEARD / POOLED)."""
    starts = frames * COLUMNS_PER_SECOND // FPS - HEARD // 2
    padded = np.pad(
        mel, ((0, 0), (HEARD, HEARD + max(0, int(frames.max()) * 4 - mel.shape[1]))), constant_values=SILENCE
    )
    columns = starts[:, None] + HEARD + np.arange(HEARD)
    windows = padded[:, columns].reshape(N_MELS, len(frames), HEARD // POOLED, POOLED).mean(-1)
    return windows.transpose(1, 0, 2).reshape(len(frames), -1)


class Ridge:
    """Linear regression of the mouth's change against static lips, in crop coordinates, from 0.65 s of mel."""

    def __init__(self, examples: Iterable[tuple[np.ndarray, np.ndarray]]) -> None:
        """`examples`: by clip, inputs of `heard_around` (F, D) and changes (F, K). Clips are not kept."""
        count, size, sums, products = 0, 0, None, None
        for inputs, changes in examples:
            row = np.concatenate([inputs, changes], axis=1, dtype=np.float64)
            sums = row.sum(0) if sums is None else sums + row.sum(0)
            products = row.T @ row if products is None else products + row.T @ row
            count, size = count + len(row), inputs.shape[1]
        if sums is None or products is None:
            raise ValueError("no example")
        mean = sums / count
        covariance = products / count - np.outer(mean, mean)
        inner = covariance[:size, :size]
        inner[np.diag_indices(size)] += PENALTY * np.trace(inner) / size
        self.weight = linalg.solve(inner, covariance[:size, size:], assume_a="pos")  # (D, K)
        self.bias = mean[size:] - mean[:size] @ self.weight

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        """(F, D) -> (F, K)."""
        return inputs @ self.weight + self.bias


def crop_matrix(box: np.ndarray, size: int) -> np.ndarray:
    """(3, 3): frame -> crop of side `size`, both in continuous pixels (the first pixel's centre is at .5)."""
    scale = size / (box[2:] - box[:2]).astype(np.float64)
    return np.array([[scale[0], 0, -box[0] * scale[0]], [0, scale[1], -box[1] * scale[1]], [0, 0, 1]])


def warp_crop(crop: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """`crop` (S, S, 3) drawn through `matrix` (3, 3) between continuous pixels; outside, the edge is repeated."""
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    through = np.linalg.inv(half) @ matrix @ half
    return cv2.warpAffine(crop, through[:2], crop.shape[1::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def nearest_reference(landmarks: np.ndarray, references: np.ndarray) -> tuple[int, np.ndarray]:
    """Which reference (N, 131, 2) has the mouth nearest to the wanted (131, 2), and the (3, 3) matrix to move it.

    Mouths are compared after the similarity, fitted to the whole face, in pixels of the target's frame.
    """
    scale, shift = fit_similarity(references, landmarks[None])
    mouths = move(references[:, LIP_SLICE], scale, shift)
    best = int(np.linalg.norm(mouths - landmarks[LIP_SLICE], axis=-1).mean(1).argmin())
    return best, np.vstack([similarity_matrix(complex(scale[best]), complex(shift[best])), [0, 0, 1]])


def paste_nearest(
    target: np.ndarray,
    box: np.ndarray,
    landmarks: np.ndarray,
    crops: np.ndarray,
    boxes: np.ndarray,
    references: np.ndarray,
) -> np.ndarray:
    """The nearest reference, aligned by a similarity, in the lower half of the target's face crop.

    Args:
        target: (S, S, 3) uint8 face crop; only its upper half is used.
        box: (4,) its box in the frame.
        landmarks: (131, 2) wanted, in pixels of the frame.
        crops: (N, S, S, 3) of the references.
        boxes: (N, 4) of the references.
        references: (N, 131, 2) their landmarks, in pixels of their frames.
    """
    size = target.shape[0]
    best, to_target = nearest_reference(landmarks, references)
    matrix = crop_matrix(box, size) @ to_target @ np.linalg.inv(crop_matrix(boxes[best], size))
    result = target.copy()
    result[size // 2 :] = warp_crop(crops[best], matrix)[size // 2 :]
    return result
