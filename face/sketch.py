"""Sketches: landmarks drawn as lines, the picture in which stage 1 tells stage 2 what to draw."""

import cv2
import numpy as np

from face.crop import SIZE
from face.landmarks import EDGES

GREY = 224  # of 255


def draw_sketch(landmarks_in_crop: np.ndarray, crop_height: int, crop_width: int, size: int = SIZE) -> np.ndarray:
    """Draws one face: landmarks (131, 2) in [0, 1] of a crop of that many pixels -> (size, size, 3) f32, 0 to 224.

    The three channels are equal. Edges with an end outside the crop (or NaN) are left out.
    """
    return np.repeat(draw_sketches(landmarks_in_crop[None], crop_height, crop_width, size)[0, ..., None], 3, axis=-1)


def draw_sketches(landmarks_in_crop: np.ndarray, crop_height: int, crop_width: int, size: int = SIZE) -> np.ndarray:
    """Draws several faces in one crop's coordinates: (T, 131, 2) -> (T, size, size) f32, 0 to 224, one channel.

    As the released code does, the lines (1 px, 8-connected, no antialiasing) are drawn on a canvas of the crop's
    aspect whose shorter side is `size`, and only then resized to the square.
    """
    shorter = min(crop_height, crop_width)
    width, height = int(crop_width * size / shorter), int(crop_height * size / shorter)
    ends = landmarks_in_crop[:, EDGES]  # (T, 125, 2, 2)
    inside = ((ends >= 0) & (ends <= 1)).all(axis=(2, 3))
    canvas_size = np.array([width, height], dtype=np.float32)
    pixels = np.floor(np.where(inside[..., None, None], ends, 0) * canvas_size)
    pixels = np.minimum(pixels, canvas_size - 1).astype(np.int32)
    sketches = np.empty((len(ends), size, size), dtype=np.float32)
    for sketch, lines, kept in zip(sketches, pixels, inside, strict=True):
        canvas = np.zeros((height, width), dtype=np.float32)
        cv2.polylines(canvas, list(lines[kept]), isClosed=False, color=(GREY,))
        cv2.resize(canvas, (size, size), dst=sketch, interpolation=cv2.INTER_LINEAR)
    return sketches
