"""Blends a drawn face back into its frame without a visible edge or change of colour."""

import cv2
import numpy as np
from numpy import ndarray

from face.crop import MARGIN, SIZE, extent, lower_half, resize_face
from face.landmarks import JAW_SLICE, LIP_SLICE, OVAL

BLUR_KERNEL = 21  # pixels; the mask's edge is blurred as in the released code
BLUR_SIGMA = 11.0
BLUR_SIDES = (128, 256)  # pixels; it suits boxes whose longer side is in this range, and scales with others
EDGE = MARGIN / (1 + 2 * MARGIN)  # share of the box over which the mask rises from 0 at the sides of the box
# Shares of the box's height. Above KNOWN the renderer sees the frame, and the frame stays as it is. Below, the drawn
# face takes over: within SEAM_MOUTH above the mouth, because the old mouth must not show through, and within SEAM_CHEEK
# on the cheeks, where a faster transition would show.
KNOWN = lower_half(SIZE).start / SIZE
SEAM_MOUTH = (0.03, 0.08)
SEAM_CHEEK = 0.16
GRID = 32  # cells per side of the grid on which colours are compared
MIN_SKIN = GRID / 2  # cells; with less skin, colours are not corrected
MAX_GAIN = 1.5  # the largest colour correction, as a factor of each channel (or its inverse)


def paste_face(
    frame: ndarray,
    face: ndarray,
    box: ndarray,
    old: ndarray,
    new: ndarray,
) -> ndarray:
    """Blends a drawn face into the frame (paper section 3.2.2: a Gaussian-smoothed face mask).

    The mask is the convex hull of the face in the frame and the drawn jaw, so that an opened mouth is not cut off. It
    ends inside the box. Unlike the released code, this keeps the frame's own upper half, which the renderer only copies
    and blurs, and removes a tint.

    Args:
        frame: (H, W, 3) uint8 RGB; not changed.
        face: (S, S, 3) float RGB in [0, 1], of any size.
        box: (4,) int x0, y0, x1, y1 that the face was cropped from.
        old: (131, 2) landmarks found in the frame, in crop coordinates.
        new: (131, 2) landmarks that the face was drawn from, in crop coordinates.

    Returns:
        (H, W, 3) uint8 RGB: a new frame, equal to the old one outside the box.
    """
    x0, y0, x1, y1 = map(int, box)
    target = frame[y0:y1, x0:x1]
    size = (x1 - x0, y1 - y0)

    fade_x = _fade(x0, x1, frame.shape[1])
    fade_y = _fade(y0, y1, frame.shape[0])
    mask = contour(old, new, size) * fade_y[:, None] * fade_x * _seam(old, new, size)

    face = face.astype(np.float32)
    drawn = resize_face(face * 255 * _tint(target, face, old, new), size, detail=True)
    difference = cv2.subtract(drawn, target, dtype=cv2.CV_32F)
    change = cv2.multiply(difference, cv2.merge([mask, mask, mask]))
    result = frame.copy()
    result[y0:y1, x0:x1] = cv2.add(target, change, dtype=cv2.CV_8U)  # rounds and saturates
    return result


def contour(old: ndarray, new: ndarray, size: tuple[int, int]) -> ndarray:
    """Soft convex hull of the old face and the new jaw (landmarks in crop): (height, width) in [0, 1]."""
    longer = max(size)
    scale = np.clip(longer, *BLUR_SIDES) / longer
    width = max(1, round(size[0] * scale))
    height = max(1, round(size[1] * scale))
    points = np.concatenate([old[OVAL], new[JAW_SLICE]])
    mask = _hull(points, (width, height)).astype(np.float32)
    blurred = cv2.GaussianBlur(mask, (BLUR_KERNEL, BLUR_KERNEL), BLUR_SIGMA)
    return resize_face(blurred, size)


def _hull(points_in_crop: ndarray, size: tuple[int, int]) -> ndarray:
    """(height, width) uint8, 1 inside the convex hull of the points."""
    width, height = size
    pixels = np.clip(points_in_crop, -1, 2) * size - 0.5  # far-off landmarks overflow in OpenCV
    hull = cv2.convexHull(np.rint(pixels * 16).astype(np.int32))  # sixteenths of a pixel: shift=4
    return cv2.fillConvexPoly(np.zeros((height, width), np.uint8), hull, (1,), shift=4)


def _seam(old: ndarray, new: ndarray, size: tuple[int, int]) -> ndarray:
    """(height, width) weights that rise from 0 at `KNOWN` to 1 where the mouth or the cheeks begin."""
    width, height = size
    x = (np.arange(width) + 0.5) / width
    y = (np.arange(height) + 0.5) / height
    left, top, right, _ = _mouth(old, new)
    above_mouth = np.clip(top - KNOWN, *SEAM_MOUTH)
    beside_mouth = np.maximum(left - x, x - right) / max(right - left, EDGE)  # from the corners, in mouth widths
    rise = above_mouth + (SEAM_CHEEK - above_mouth) * _smoothstep(2 * beside_mouth)  # (width,)
    return _smoothstep((y[:, None] - KNOWN) / rise).astype(np.float32)


def _mouth(old: ndarray, new: ndarray) -> ndarray:
    """(4,) the box around the old and the new mouth."""
    return extent(np.concatenate([old[LIP_SLICE], new[LIP_SLICE]]))


def _fade(low: int, high: int, limit: int) -> ndarray:
    """(high - low,) weights that rise from 0 at both ends, except where the frame ends, at 0 or `limit`."""
    count = high - low
    rise = _smoothstep(np.arange(count, dtype=np.float32) / max(1.0, EDGE * count))
    weights = np.ones(count, np.float32)
    if low > 0:
        weights *= rise
    if high < limit:
        weights *= rise[::-1]
    return weights


def _smoothstep(x: ndarray) -> ndarray:
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def _tint(target: ndarray, face: ndarray, old: ndarray, new: ndarray) -> ndarray:
    """(3,) f32 factors that give the skin of `face` its colour in the frame, measured where both show the same."""
    skin = _common_skin(old, new)
    if skin.sum() < MIN_SKIN:
        return np.ones(3, np.float32)
    step = max(1, min(target.shape[:2]) // (4 * GRID))  # a few pixels per cell are enough
    actual = cv2.resize(target[::step, ::step], (GRID, GRID), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    drawn = cv2.resize(face, (GRID, GRID), interpolation=cv2.INTER_AREA)
    ratio = (actual + 0.02) / (np.maximum(drawn, 0) + 0.02)
    return np.median(ratio[skin], axis=0).clip(1 / MAX_GAIN, MAX_GAIN)


def _common_skin(old: ndarray, new: ndarray) -> ndarray:
    """(GRID, GRID) bool: cells of cheeks and nose in the lower half, without mouth and chin, which may change."""
    left, top, right, _ = GRID * _mouth(old, new)
    y, x = np.mgrid[:GRID, :GRID] + 0.5
    mouth_and_chin = (y > top - 1) & (x > left - 1) & (x < right + 1)
    both = _hull(old[OVAL], (GRID, GRID)) & _hull(new[OVAL], (GRID, GRID))
    skin = cv2.erode(both, np.ones((3, 3), np.uint8)) > 0
    return skin & (y > KNOWN * GRID) & ~mouth_and_chin
