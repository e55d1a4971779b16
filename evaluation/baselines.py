"""What any method has to beat: static lips in place of stage 1, a pasted reference in place of stage 2."""

from typing import Any, cast

import cv2
import numpy as np

from evaluation.geometry import fit_similarity, move, similarity_matrix
from face.landmarks import JAW_SLICE, LIP_SLICE, POSE_SLICE
from inference import Dubber, References
from media.audio import FPS

CONTENT = slice(JAW_SLICE.start, LIP_SLICE.stop)  # jaw and lips: what the pose does not tell
CANDIDATES = 25  # references that the nearest is chosen from


def static_lips(landmarks: np.ndarray, references: np.ndarray) -> np.ndarray:
    """A mouth that never moves: mean jaw, lips of `references` (N, 131, 2) on the poses of `landmarks` (F, 131, 2).

    Each reference is moved by the similarity that brings its pose to the frame's. In pixels or crop coordinates.
    """
    scale, shift = fit_similarity(references[None, :, POSE_SLICE], landmarks[:, None, POSE_SLICE])  # (F, N)
    result = np.array(landmarks, dtype=np.float32)
    result[:, CONTENT] = move(references[None, :, CONTENT], scale, shift).mean(1)
    return result


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
    scale, shift = fit_similarity(references, wanted[None])
    mouths = move(references[:, LIP_SLICE], scale, shift)
    best = int(np.linalg.norm(mouths - wanted[LIP_SLICE], axis=-1).mean(1).argmin())
    matrix, half = similarity_matrix(complex(scale[best]), complex(shift[best])), size // 2
    moved = cv2.warpAffine(crops[best], matrix, (size, size), borderMode=cv2.BORDER_REPLICATE)
    return np.concatenate([target[:half], moved[half:]])


class StaticLips(Dubber):
    """Draws a mouth that never moves: what stage 2 alone makes of a face."""

    def predict_landmarks(
        self, landmarks_in_crop: np.ndarray, references: np.ndarray, mel: np.ndarray, fps: float = FPS
    ) -> np.ndarray:
        return static_lips(landmarks_in_crop, references)


class NearestReference(Dubber):
    """Stage 1 and, in place of stage 2, the aligned nearest of `CANDIDATES` references."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.num_candidates = CANDIDATES

    def encode_references(self, images: np.ndarray, landmarks_in_crop: np.ndarray, boxes: np.ndarray) -> References:
        return References(cast(Any, images), landmarks_in_crop)

    def draw_faces(
        self,
        faces: np.ndarray,
        landmarks_in_crop: np.ndarray,
        sketches: np.ndarray,
        references: References,
        mel: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        crops = cast(np.ndarray, references.features)
        pasted = [
            paste_nearest(face, wanted, crops, references.landmarks_in_crop)
            for face, wanted in zip(faces, landmarks_in_crop, strict=True)
        ]
        drawn = np.stack(pasted).astype(np.float32) / 255
        return drawn, drawn
