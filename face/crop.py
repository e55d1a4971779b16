"""The one crop rule of preprocessing, training and inference: box around the face, smoothing, rounding, lower half.

Coordinates are continuous: pixel column k covers [k, k + 1]. A box is (x0, y0, x1, y1) in pixels of the frame; in crop
coordinates it spans [0, 1] in both directions.
"""

import cv2
import numpy as np
from numpy import ndarray

MARGIN = 0.05  # on each side, as a share of the landmarks' width and height
SMOOTHING = 2  # frames on each side whose boxes are averaged
SIZE = 128  # pixels, side of a face crop
MIN_SIDE = 2  # pixels; a box is never thinner, unless the frame is
SAME_FACE = 0.3  # with a lower intersection over union, two boxes a few frames apart indicate a cut, not a movement


def settings(size: int = SIZE) -> dict[str, str | int | float]:
    """Fingerprint of the crop rule, for caches and weights."""
    return {
        "crop.size": size,
        "crop.margin": MARGIN,
        "crop.smoothing": SMOOTHING,
        "crop.rounding": "nearest, half up",
    }


def lower_half(size: int) -> slice:
    """Rows of a crop of `size` pixels that are masked in the target and drawn by the renderer (paper section 3.2)."""
    return slice(size // 2, size)


def extent(points: ndarray) -> ndarray:
    """Tight box around points: (..., K, 2) -> (..., 4) x0, y0, x1, y1."""
    return np.concatenate([points.min(axis=-2), points.max(axis=-2)], axis=-1)


def centre(box: ndarray) -> ndarray:
    """(..., 4) -> (..., 2)."""
    return (box[..., :2] + box[..., 2:]) / 2


def sides(box: ndarray) -> ndarray:
    """(..., 4) -> (..., 2) width and height."""
    return box[..., 2:] - box[..., :2]


def box_around(landmarks_in_frame: ndarray, frame_size: tuple[int, int] | None = None) -> ndarray:
    """Boxes around faces: (..., K, 2) landmarks -> (..., 4) float32.

    A box is the extent of the landmarks plus a margin, clipped to the frame if its (width, height) is given.
    """
    box = extent(landmarks_in_frame)
    margin = MARGIN * sides(box)
    low = box[..., :2] - margin
    high = box[..., 2:] + margin
    if frame_size is not None:
        size = np.asarray(frame_size, np.float32)
        low = np.clip(low, 0, np.maximum(size - MIN_SIDE, 0))
        high = np.clip(high, np.minimum(low + MIN_SIDE, size), size)
    return np.concatenate([low, high], axis=-1).astype(np.float32)


def overlap(a: ndarray, b: ndarray) -> ndarray:
    """Intersection over union of boxes (..., 4), in [0, 1]; 0 where a box is NaN."""
    low = np.maximum(a[..., :2], b[..., :2])
    high = np.minimum(a[..., 2:], b[..., 2:])
    common = np.maximum(high - low, 0).prod(axis=-1)
    union = sides(a).prod(axis=-1) + sides(b).prod(axis=-1) - common
    return np.where(common > 0, common / np.maximum(union, 1e-9), 0)


def smooth_boxes(boxes: ndarray, found: ndarray, shots: ndarray | int = 0) -> ndarray:
    """Averages each box with those of neighbouring frames that show the same face in the same shot, and rounds.

    Args:
        boxes: (F, 4) pixels, clipped to the frame.
        found: (F,) bool, whether a frame has a face; boxes of other frames are ignored.
        shots: (F,) number of each frame's shot, or one number for all.

    Returns:
        (F, 4) int32; zeros where no face was found.
    """
    count = len(boxes)
    shots = np.broadcast_to(shots, count)
    known = np.where(found[:, None], boxes, np.nan).astype(np.float64)
    neighbours = np.arange(count)[:, None] + np.arange(-SMOOTHING, SMOOTHING + 1)  # (F, 5)
    inside = (neighbours >= 0) & (neighbours < count)
    neighbours = neighbours.clip(0, max(count - 1, 0))
    same = inside & (overlap(known[:, None], known[neighbours]) >= SAME_FACE) & (shots[:, None] == shots[neighbours])
    total = known[neighbours].sum(axis=1, where=same[..., None])
    mean = total / np.maximum(same.sum(axis=1), 1)[:, None]
    return np.floor(mean + 0.5).astype(np.int32)


def crop_face(frame: ndarray, box: ndarray, size: int = SIZE, detail: bool = False) -> ndarray:
    """Crops `box` (4,) int from `frame` (H, W, 3) uint8 and resizes it to (size, size, 3) uint8: see `resize_face`."""
    x0, y0, x1, y1 = map(int, box)
    return resize_face(frame[y0:y1, x0:x1], (size, size), detail)


def resize_face(face: ndarray, size: tuple[int, int], detail: bool = False) -> ndarray:
    """Resizes to (width, height): averages areas when shrinking, interpolates linearly when growing.

    With `detail` it interpolates bicubically, and averages areas only when shrinking to less than a quarter of the
    pixels. Resized to a crop and back, a mouth then loses 5 % of its Laplacian energy instead of 40 to 50 %.
    """
    width, height = size
    smallest_averaged = width * height * (4 if detail else 1)
    interpolation = cv2.INTER_CUBIC if detail else cv2.INTER_LINEAR
    if face.shape[0] * face.shape[1] > smallest_averaged:
        interpolation = cv2.INTER_AREA
    return cv2.resize(face, size, interpolation=interpolation)


def to_crop(landmarks_in_frame: ndarray, box: ndarray) -> ndarray:
    """(..., K, 2) in pixels of the frame -> crop coordinates of the boxes (..., 4): [0, 1] inside. float32."""
    box = np.asarray(box, np.float32)[..., None, :]
    scale = np.maximum(sides(box), 1)
    return ((landmarks_in_frame - box[..., :2]) / scale).astype(np.float32)


def to_frame(landmarks_in_crop: ndarray, box: ndarray) -> ndarray:
    """Inverse of `to_crop`: (..., K, 2) in crop coordinates -> pixels of the frame, float32."""
    box = np.asarray(box, np.float32)[..., None, :]
    return (landmarks_in_crop * sides(box) + box[..., :2]).astype(np.float32)
