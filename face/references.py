"""The choice of reference frames: spread evenly over lip openness, or the nearest to a target."""

import numpy as np
from numpy import ndarray

from face.landmarks import LIP_SLICE, MIDDLE_LIPS


def lip_openness(
    landmarks_in_frame: ndarray,
    box_height: ndarray | float,
    pairs: ndarray = MIDDLE_LIPS,
) -> ndarray:
    """Lip openness: mean distance between paired points of the upper and the lower lip, relative to the box's height.

    Args:
        landmarks_in_frame: (..., 131, 2).
        box_height: (...) height of the face box, in the same units.
        pairs: (K, 2) positions of the pairs: `MIDDLE_LIPS`, `OUTER_LIPS` or `INNER_LIPS` (the gap).

    Returns:
        (...) openness; NaN where landmarks are NaN.
    """
    gaps = np.diff(landmarks_in_frame[..., pairs, :], axis=-2)  # (..., K, 1, 2), from the upper to the lower lip
    distance = np.linalg.norm(gaps, axis=-1).mean(axis=(-2, -1))
    return distance / np.maximum(box_height, 1)


def spread_over_openness(openness: ndarray, count: int) -> ndarray:
    """Chooses `count` frames evenly from the most closed to the most open mouth.

    Args:
        openness: (F,); frames where it is NaN are never chosen.
        count: how many; if fewer frames are usable, each is chosen once. With 1, the median frame is chosen.

    Returns:
        Frame indices, from closed to open; empty if no frame is usable.
    """
    order = np.argsort(openness, kind="stable")  # NaN sorts to the end
    order = order[: np.isfinite(openness).sum()]
    last = len(order) - 1
    if last < count:
        return order
    if count == 1:
        return order[[len(order) // 2]]
    return order[np.arange(count) * last // (count - 1)]


def nearest_references(landmarks_in_crop: ndarray, candidates: ndarray, count: int) -> ndarray:
    """Chooses the candidates whose faces are nearest to each target's; the lips weigh as much as all points together.

    Args:
        landmarks_in_crop: (B, 131, 2) of the targets.
        candidates: (M, 131, 2), also in crop coordinates.
        count: how many, at most M.

    Returns:
        (B, count) positions in `candidates`, nearest first.
    """
    distance = np.linalg.norm(landmarks_in_crop[:, None] - candidates, axis=-1)  # (B, M, 131)
    cost = distance.mean(axis=-1) + distance[..., LIP_SLICE].mean(axis=-1)
    return np.argsort(cost, axis=1, kind="stable")[:, :count]
