"""The one crop rule, the same in preprocessing, training and inference: box around the face, smoothing, rounding.

Coordinates are continuous: pixel column k covers [k, k + 1]. A box is x0, y0, x1, y1; in crop coordinates it is [0, 1].
"""

import cv2
import numpy as np

MARGIN = 0.05  # of the landmarks' own width and height, on each side
SMOOTHING = 2  # frames on each side whose boxes are averaged
SIZE = 128  # pixels of a face crop's side
MIN_SIDE = 2  # pixels; a box is never thinner (unless the frame is)
SAME_FACE = 0.3  # overlap under which two boxes a few frames apart show a cut, not a movement


def settings(size: int = SIZE) -> dict[str, str | int | float]:
    """Fingerprint of the crop rule, for caches and weights."""
    return {"crop.size": size, "crop.margin": MARGIN, "crop.smoothing": SMOOTHING, "crop.rounding": "nearest, half up"}


def box_around(landmarks_in_frame: np.ndarray, frame_size: tuple[int, int] | None = None) -> np.ndarray:
    """(..., K, 2) -> (..., 4) f32: the landmarks' extent plus the margin, clipped to a frame (width, height)."""
    low, high = landmarks_in_frame.min(axis=-2), landmarks_in_frame.max(axis=-2)
    margin = MARGIN * (high - low)
    low, high = low - margin, high + margin
    if frame_size is not None:
        size = np.asarray(frame_size, dtype=np.float32)
        low = np.clip(low, 0, np.maximum(size - MIN_SIDE, 0))
        high = np.clip(high, np.minimum(low + MIN_SIDE, size), size)
    return np.concatenate([low, high], axis=-1).astype(np.float32)


def overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (..., 4), in [0, 1]; 0 where a box is NaN."""
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = np.prod(np.maximum(np.nan_to_num(sides), 0), axis=-1)
    areas = np.prod(a[..., 2:] - a[..., :2], axis=-1) + np.prod(b[..., 2:] - b[..., :2], axis=-1)
    return np.divide(shared, areas - shared, out=np.zeros_like(shared), where=shared > 0)


def smooth_boxes(boxes: np.ndarray, found: np.ndarray, shots: np.ndarray | int = 0) -> np.ndarray:
    """Averages each box with those of the neighbouring frames that show the same face, and rounds.

    Args:
        boxes: (F, 4) pixels, clipped to the frame.
        found: (F,) bool; boxes of other frames are neither used nor kept.
        shots: (F,) numbers of the shots that the frames belong to, if there are several.

    Returns:
        (F, 4) int32; zeros where no face was found.
    """
    boxes = np.where(found[:, None], boxes, np.nan).astype(np.float64)
    reach = ((SMOOTHING, SMOOTHING), (0, 0))
    padded = np.pad(np.column_stack([boxes, np.broadcast_to(shots, len(boxes))]), reach, constant_values=np.nan)
    near = np.stack([padded[shift : shift + len(boxes)] for shift in range(2 * SMOOTHING + 1)])  # (5, F, 5)
    same = (overlap(boxes, near[..., :4]) >= SAME_FACE) & (near[..., 4] == shots)  # (5, F)
    total = np.where(same[..., None], near[..., :4], 0).sum(axis=0)
    smooth = total / np.maximum(same.sum(axis=0), 1)[:, None]
    return np.floor(smooth + 0.5).astype(np.int32)


def crop_face(frame: np.ndarray, box: np.ndarray, size: int = SIZE) -> np.ndarray:
    """Cuts `box` (4,) int out of `frame` (H, W, 3) uint8 and resizes it to (size, size, 3) uint8."""
    x0, y0, x1, y1 = (int(side) for side in box)
    return resize_face(frame[y0:y1, x0:x1], (size, size))


def resize_face(face: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes to (width, height): averages areas when shrinking, interpolates linearly when growing."""
    shrinks = face.shape[0] * face.shape[1] > size[0] * size[1]
    return cv2.resize(face, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def to_crop(landmarks_in_frame: np.ndarray, box: np.ndarray) -> np.ndarray:
    """(..., K, 2) in pixels of the frame -> crop coordinates of the boxes (..., 4): [0, 1] inside. float32."""
    box = np.asarray(box, dtype=np.float32)[..., None, :]
    return ((landmarks_in_frame - box[..., :2]) / np.maximum(box[..., 2:] - box[..., :2], 1)).astype(np.float32)


def to_frame(landmarks_in_crop: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Inverse of `to_crop`: (..., K, 2) in crop coordinates -> pixels of the frame, float32."""
    box = np.asarray(box, dtype=np.float32)[..., None, :]
    return (landmarks_in_crop * (box[..., 2:] - box[..., :2]) + box[..., :2]).astype(np.float32)
