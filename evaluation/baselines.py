"""Simple answers that any method has to beat, all with the pose of every frame.

In place of stage 1: static lips, a ridge regression from the sound. In place of stage 2: the
aligned nearest reference.
"""

from collections.abc import Iterable

import cv2
import numpy as np
from numpy import ndarray
from skimage.transform import estimate_transform

from face.landmarks import CONTENT, LIP_SLICE, POSE_SLICE, with_content
from metrics.image_quality import FeaturePool
from networks import Networks, References

CANDIDATES = 25  # references from which the nearest is chosen in validation
TEMPO = 3.25  # of the mel windows that the ridge regression sees: 0.65 s
PENALTY = 0.3  # of its weights, relative to the mean variance of its inputs


def apply_similarity(points: ndarray, source: ndarray, target: ndarray) -> ndarray:
    """Moves points (..., M, 2) by the similarity that maps `source` (..., K, 2) to `target` by least squares.

    In the complex plane a similarity is z -> a z + b, which has a closed form. Leading axes broadcast.
    """
    points = _as_complex(points)
    source = _as_complex(source)
    target = _as_complex(target)
    source_mean = source.mean(axis=-1, keepdims=True)
    centred = source - source_mean
    power = (np.abs(centred) ** 2).sum(axis=-1, keepdims=True)
    scaled_rotation = (centred.conj() * target).sum(axis=-1, keepdims=True) / power.clip(1e-12)
    moved = scaled_rotation * (points - source_mean) + target.mean(axis=-1, keepdims=True)
    return np.stack([moved.real, moved.imag], axis=-1)


def _as_complex(points: ndarray) -> ndarray:
    return np.asarray(points, dtype=np.float64) @ np.array([1, 1j])


def transfer_content(source: ndarray, target: ndarray) -> ndarray:
    """Jaw and lips (..., 57, 2) of faces `source` (..., 131, 2), moved by the similarity from their pose to `target`'s.

    In pixels or in crop coordinates; leading axes broadcast.
    """
    return apply_similarity(source[..., CONTENT, :], source[..., POSE_SLICE, :], target[..., POSE_SLICE, :])


def static_lips(landmarks: ndarray, references: ndarray) -> ndarray:
    """A mouth that never moves: the mean jaw and lips of references (N, 131, 2) on the poses of landmarks (F, 131, 2).

    Each reference is first moved to the frame's pose by a similarity. In pixels or in crop coordinates.
    """
    content = transfer_content(references[None], landmarks[:, None])  # (F, N, 57, 2)
    return with_content(landmarks, content.mean(axis=1))


class RidgeRegression:
    """Predicts jaw and lips (F, 57, 2), relative to static lips in crop coordinates, from 0.65 s of mel."""

    def __init__(self, examples: Iterable[tuple[ndarray, ndarray]]) -> None:
        """`examples`: of each clip, mel windows (F, 1, 80, 16) and what to predict. Clips are not kept."""
        pool = FeaturePool()
        num_inputs = 0
        for windows, content in examples:
            inputs = windows.reshape(len(windows), -1)
            num_inputs = inputs.shape[1]
            pool.add(np.hstack([inputs, content.reshape(len(windows), -1)]))
        statistics = pool.statistics()
        mean = statistics["mu"]
        covariance = statistics["sigma"]
        of_inputs = covariance[:num_inputs, :num_inputs]
        penalty = PENALTY * of_inputs.diagonal().mean() * np.eye(num_inputs)
        self.weight = np.linalg.solve(of_inputs + penalty, covariance[:num_inputs, num_inputs:])
        self.bias = mean[num_inputs:] - mean[:num_inputs] @ self.weight

    def __call__(self, windows: ndarray) -> ndarray:
        """(F, 1, 80, 16) -> (F, 57, 2)."""
        content = windows.reshape(len(windows), -1) @ self.weight + self.bias
        return content.reshape(len(windows), -1, 2)


def paste_nearest(
    face: ndarray, landmarks_in_crop: ndarray, references: ndarray, reference_landmarks: ndarray
) -> ndarray:
    """Fills the lower half of a face crop with the aligned reference that has the nearest mouth.

    Mouths are compared after the similarity that aligns the whole faces.

    Args:
        face: (S, S, 3) uint8, of which only the upper half is used.
        landmarks_in_crop: (131, 2) of the face to draw.
        references: (N, S, S, 3) face crops.
        reference_landmarks: (N, 131, 2), in crop coordinates.
    """
    size = face.shape[0]
    target = landmarks_in_crop * size - 0.5  # pixels, whose centres are whole numbers
    sources = reference_landmarks * size - 0.5
    mouths = apply_similarity(sources[:, LIP_SLICE], sources, target)
    distances = np.linalg.norm(mouths - target[LIP_SLICE], axis=-1).mean(axis=1)  # (N,)
    nearest = int(distances.argmin())
    similarity = estimate_transform("similarity", sources[nearest], target)
    aligned = cv2.warpAffine(references[nearest], similarity.params[:2], (size, size), borderMode=cv2.BORDER_REPLICATE)
    half = size // 2
    return np.concatenate([face[:half], aligned[half:]])


class StaticLips(Networks):
    """A mouth that never moves in place of stage 1: what stage 2 alone makes of a face."""

    def predict_landmarks(self, landmarks_in_crop: ndarray, references: ndarray, *_: object, **__: object) -> ndarray:
        return static_lips(landmarks_in_crop, references)


class NearestReference(Networks):
    """The aligned nearest reference in place of stage 2."""

    def draw_faces(
        self,
        faces: ndarray,
        landmarks_in_crop: ndarray,
        sketches: ndarray,
        references: References,
        mel: ndarray,
    ) -> tuple[ndarray, ndarray]:
        drawn = []
        for face, landmarks in zip(faces, landmarks_in_crop, strict=True):
            drawn.append(paste_nearest(face, landmarks, references.images, references.landmarks_in_crop))
        images = np.stack(drawn).astype(np.float32) / 255
        return images, images
