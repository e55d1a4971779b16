"""Which frames serve as references: spread evenly over how far the mouth is open."""

import numpy as np

from face.landmarks import LOWER_LIP, UPPER_LIP


def lip_openness(landmarks_in_frame: np.ndarray, box_height: np.ndarray | float) -> np.ndarray:
    """Distance of the upper from the lower lip's middle, in heights of the face box: (..., 131, 2) -> (...)."""
    distance = np.linalg.norm(landmarks_in_frame[..., UPPER_LIP, :] - landmarks_in_frame[..., LOWER_LIP, :], axis=-1)
    return distance / np.maximum(box_height, 1)


def spread_over_openness(openness: np.ndarray, count: int) -> np.ndarray:
    """Chooses `count` frames evenly from the most closed to the most open mouth.

    Args:
        openness: (F,); frames where it is NaN are never chosen.
        count: how many; a clip with fewer usable frames gives each of them once. One frame is the one in the middle.

    Returns:
        Frame indices, from closed to open; empty when no frame is usable.
    """
    order = np.argsort(openness, kind="stable")[: np.isfinite(openness).sum()]  # NaN sorts to the end
    if len(order) <= count:
        return order
    if count == 1:
        return order[[len(order) // 2]]
    return order[np.arange(count) * (len(order) - 1) // (count - 1)]
