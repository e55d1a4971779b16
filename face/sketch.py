"""Sketches: landmarks drawn as lines, which show the renderer where mouth and jaw go (paper section 3.2)."""

import cv2
import numpy as np
from numpy import ndarray

from face.crop import SIZE
from face.landmarks import EDGES

GREY = 224  # of 255, of the lines


def draw_sketch(landmarks_in_crop: ndarray, crop_height: int, crop_width: int, size: int = SIZE) -> ndarray:
    """Draws one face: landmarks (131, 2) in a crop of this size in pixels -> (size, size, 3) f32, 0 to 224.

    The three channels are equal. Edges with an end outside the crop (or NaN) are left out.
    """
    sketch = draw_sketches(landmarks_in_crop[None], crop_height, crop_width, size)[0]
    return np.stack([sketch] * 3, axis=-1)


def draw_sketches(landmarks_in_crop: ndarray, crop_height: int, crop_width: int, size: int = SIZE) -> ndarray:
    """Draws several faces in the coordinates of one crop: (T, 131, 2) -> (T, size, size) f32, 0 to 224, one channel.

    As in the released code, the lines (1 px, 8-connected, no antialiasing) are drawn on a canvas of the crop's aspect
    ratio whose shorter side is `size`, which is then resized to the square.
    """
    shorter = min(crop_height, crop_width)
    width = int(crop_width * size / shorter)
    height = int(crop_height * size / shorter)
    canvas_size = np.array([width, height], np.float32)

    ends = landmarks_in_crop[:, EDGES]  # (T, 125, 2, 2)
    inside = ((ends >= 0) & (ends <= 1)).all(axis=(2, 3))  # (T, 125)
    ends = np.where(inside[..., None, None], ends, 0)
    pixels = np.minimum(ends * canvas_size, canvas_size - 1).astype(np.int32)

    sketches = np.empty((len(ends), size, size), np.float32)
    for frame, sketch in enumerate(sketches):
        canvas = np.zeros((height, width), np.float32)
        lines = pixels[frame, inside[frame]]
        cv2.polylines(canvas, list(lines), isClosed=False, color=(GREY,))
        cv2.resize(canvas, (size, size), dst=sketch, interpolation=cv2.INTER_LINEAR)
    return sketches
