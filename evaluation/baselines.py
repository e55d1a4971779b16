"""Baselines that any method has to beat. They keep the pose of every frame.

Static lips replace stage 1. The aligned nearest reference replaces stage 2.
"""

import cv2
import numpy as np
from numpy import ndarray
from skimage.transform import estimate_transform

from face.crop import lower_half
from face.landmarks import CONTENT, LIP_SLICE, POSE_SLICE, with_content
from metrics.lip_motion import landmark_distance
from networks import Networks, References


def transfer_content(source: ndarray, target: ndarray) -> ndarray:
    """Moves the jaw and lips (57, 2) of a face (131, 2) by the similarity that maps its pose to the target's.

    The similarity is a least-squares fit. Coordinates are in pixels or of the crop.
    """
    source = source.astype(np.float64)
    similarity = estimate_transform("similarity", source[POSE_SLICE], target[POSE_SLICE].astype(np.float64))
    return similarity(source[CONTENT])


def static_lips(landmarks: ndarray, references: ndarray) -> ndarray:
    """Puts the mean jaw and lips of references (N, 131, 2) on landmarks (F, 131, 2): a mouth that never moves.

    Each reference is first moved to the frame's pose by a similarity. Coordinates are in pixels or of the crop.
    """
    content = []
    for face in landmarks:
        moved = [transfer_content(reference, face) for reference in references]
        content.append(np.mean(moved, axis=0))
    return with_content(landmarks, np.stack(content))


def paste_nearest(face: ndarray, landmarks_in_crop: ndarray, references: References) -> ndarray:
    """Fills the lower half of a face crop from the aligned reference with the nearest mouth.

    Mouths are compared after the similarity that aligns the whole faces.

    Args:
        face: (S, S, 3) uint8; only the upper half is used.
        landmarks_in_crop: (131, 2), landmarks of the face to draw.
        references: references, whose images and landmarks are used.
    """
    size = len(face)
    target = landmarks_in_crop * size - 0.5  # pixels, whose centres are whole numbers
    sources = references.landmarks_in_crop * size - 0.5
    similarities = [estimate_transform("similarity", source, target) for source in sources]
    mouths = [similarity(source[LIP_SLICE]) for similarity, source in zip(similarities, sources, strict=True)]
    nearest = landmark_distance(np.stack(mouths), target[LIP_SLICE]).argmin()
    transform = similarities[nearest].params[:2]
    aligned = cv2.warpAffine(references.images[nearest], transform, (size, size), borderMode=cv2.BORDER_REPLICATE)
    rows = lower_half(size)
    pasted = face.copy()
    pasted[rows] = aligned[rows]
    return pasted


class StaticLips(Networks):
    """A mouth that never moves in place of stage 1, which shows what stage 2 does by itself."""

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
        drawn = [paste_nearest(*face, references) for face in zip(faces, landmarks_in_crop, strict=True)]
        images = np.stack(drawn).astype(np.float32) / 255
        return images, images
