"""Puts a drawn face back into its frame, so that neither an edge nor a change of colour shows."""

import cv2
import numpy as np

from face.crop import MARGIN, resize_face, to_crop
from face.landmarks import JAW_SLICE, LIP_SLICE, OVAL

BLUR = (21, 11.0)  # kernel and sigma of the mask's edge in pixels, the released code's, for the faces it was made for:
BLUR_SIDES = (128, 256)  # pixels of the box's longer side; with smaller and larger faces the blur shrinks and grows
EDGE = MARGIN / (1 + 2 * MARGIN)  # share of the box over which the mask rises from 0 at the box's sides
# Shares of the box's height. Above `KNOWN` the renderer was given the frame, and the frame stays. From there the drawn
# face takes over: fast above the mouth, which must not show through, slowly over the cheeks, where a step would show.
KNOWN, SEAM_MOUTH, SEAM_CHEEK = 0.5, (0.03, 0.08), 0.16
GRID = 32  # cells a side of the grid on which colours are compared
MAX_GAIN = 1.5  # the largest colour correction: each channel is multiplied by this at most, or divided
OUTLIER = 0.15  # log of a ratio: how far from the usual one a cell may be before it is taken for a feature, not a tint


def paste_face(
    frame: np.ndarray, face: np.ndarray, box: np.ndarray, old_landmarks_in_frame: np.ndarray,
    new_landmarks_in_frame: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """Blends a drawn face into the frame (paper section 3.4: a Gaussian-smoothed face mask).

    The mask's contour is convex and holds the face as it was and the jaw as it is drawn, so that an opened mouth is not
    cut. It ends inside the box. Unlike in the released code, the upper half, which the renderer only copies (and
    blurs), stays the frame's own, and a slow change of colour is taken off the drawn face.

    Args:
        frame: (H, W, 3) uint8 RGB; left as it is.
        face: (S, S, 3) float RGB in [0, 1], of any size.
        box: (4,) int x0, y0, x1, y1 that the face was cropped from.
        old_landmarks_in_frame: (131, 2) found in the frame.
        new_landmarks_in_frame: (131, 2) that the face was drawn from.

    Returns:
        (H, W, 3) uint8 RGB: a new frame, equal to the old one outside the box.
    """
    x0, y0, x1, y1 = (int(side) for side in box)
    result = frame.copy()
    target = frame[y0:y1, x0:x1]
    size = (x1 - x0, y1 - y0)
    old, new = to_crop(old_landmarks_in_frame, box), to_crop(new_landmarks_in_frame, box)
    weight_y = _edges(size[1], y0 > 0, y1 < frame.shape[0])
    weight_x = _edges(size[0], x0 > 0, x1 < frame.shape[1])
    mask = contour(old, new, size) * (weight_y[:, None] * weight_x) * _seam(old, new, size)

    face = face.astype(np.float32)
    gain = _colour_gain(target, face, old, new)
    drawn = cv2.multiply(resize_face(face, size), cv2.resize(255 * gain, size, interpolation=cv2.INTER_LINEAR))
    change = cv2.multiply(cv2.subtract(drawn, target, dtype=cv2.CV_32F), cv2.merge([mask, mask, mask]))
    result[y0:y1, x0:x1] = cv2.add(target, change, dtype=cv2.CV_8U)  # rounds and saturates
    return result


def contour(old: np.ndarray, new: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Soft convex hull of the old face and the new jaw, in [0, 1], at `size` (width, height)."""
    scale = np.clip(max(size), *BLUR_SIDES) / max(size)
    width, height = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    points = np.concatenate([old[OVAL], new[JAW_SLICE]]) * [width, height] - 0.5
    hull = cv2.convexHull(np.rint(np.clip(points, -width, 2 * width + height) * 16).astype(np.int32))
    filled = cv2.fillConvexPoly(np.zeros((height, width), np.uint8), hull, (255,), shift=4)
    blurred = cv2.GaussianBlur(filled.astype(np.float32) / 255, (BLUR[0], BLUR[0]), BLUR[1])
    return resize_face(blurred, size)


def _seam(old: np.ndarray, new: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(height, width) weights that rise from 0 at `KNOWN` to 1 where a mouth or a cheek begins."""
    lips = np.concatenate([old[LIP_SLICE], new[LIP_SLICE]])
    left, right = lips[:, 0].min(), lips[:, 0].max()
    above_mouth = np.clip(lips[:, 1].min() - KNOWN, *SEAM_MOUTH)
    x, y = ((np.arange(count, dtype=np.float32) + 0.5) / count for count in size)
    beside = np.maximum(left - x, x - right) / max(right - left, EDGE)  # in widths of the mouth, from its corner
    rise = above_mouth + (SEAM_CHEEK - above_mouth) * _smoothstep(2 * beside)  # (width,)
    return _smoothstep((y[:, None] - KNOWN) / rise).astype(np.float32)


def _edges(count: int, low: bool, high: bool) -> np.ndarray:
    """(count,) weights that rise from 0 at each end that is asked for; a side on the frame's border needs none."""
    rise = _smoothstep(np.arange(count, dtype=np.float32) / max(1.0, EDGE * count))
    return (rise if low else np.ones_like(rise)) * (rise[::-1] if high else 1)


def _smoothstep(x: np.ndarray) -> np.ndarray:
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def _colour_gain(target: np.ndarray, face: np.ndarray, old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """(GRID, GRID, 3) f32 by which to multiply the face so that skin has the colour that it has in the frame.

    It varies slowly. The two are compared where both show the same skin: cheeks and nose in the lower half, without
    mouth and chin, which are meant to change.
    """
    step = max(1, min(target.shape[:2]) // (4 * GRID))  # a few pixels of each cell will do
    known = cv2.resize(target[::step, ::step], (GRID, GRID), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    drawn = cv2.resize(face, (GRID, GRID), interpolation=cv2.INTER_AREA)
    ratio = np.log((known + 0.02) / (np.maximum(drawn, 0) + 0.02))
    corners = [np.rint(np.clip(points[OVAL], -1, 2) * GRID - 0.5).astype(np.int32) for points in (old, new)]
    hulls = [cv2.fillConvexPoly(np.zeros((GRID, GRID), np.uint8), cv2.convexHull(c), (1,)) for c in corners]
    skin = cv2.erode(np.minimum(*hulls), np.ones((3, 3), np.uint8)).astype(np.float32)
    mouth = np.concatenate([old[LIP_SLICE], new[LIP_SLICE]]) * GRID
    left, right, top = mouth[:, 0].min() - 1, mouth[:, 0].max() + 1, mouth[:, 1].min() - 1
    y, x = np.mgrid[:GRID, :GRID] + 0.5
    skin *= (y > KNOWN * GRID) & ~((y > top) & (x > left) & (x < right))
    if skin.sum() < GRID / 2:  # too little to judge by
        return np.ones((GRID, GRID, 3), np.float32)
    usual = np.median(ratio[skin > 0], axis=0)
    rest = ratio - usual
    trust = skin * np.exp(-np.square(rest / OUTLIER).mean(axis=2))
    near = cv2.GaussianBlur(trust, (0, 0), GRID / 6)
    local = cv2.GaussianBlur(rest * trust[..., None], (0, 0), GRID / 6) / (near + 0.05)[..., None]
    return np.exp(np.clip(usual + local, -np.log(MAX_GAIN), np.log(MAX_GAIN))).astype(np.float32)


def add_panel(result: np.ndarray, cells: list[np.ndarray]) -> np.ndarray:
    """The result with a column of four cells at its right: landmarks, sketch, aligned reference, drawn face."""
    side = result.shape[0] // 4
    column = np.zeros((result.shape[0], side, 3), np.uint8)
    for row, cell in enumerate(cells):
        column[row * side : (row + 1) * side] = cv2.resize(cell, (side, side), interpolation=cv2.INTER_AREA)
    return np.concatenate([result, column], axis=1)
