"""Pictures as arrays: made upright, without interlacing or transparency; and the formats that only Pillow reads."""

import warnings
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from numpy import ndarray
from PIL import ExifTags, Image, ImageOps, ImageSequence

WHITE = 255
_MIN_COMB = 8  # grey levels by which a line of the other field sticks out
_JPEG_IN_TIFF = {"jpeg", "tiff_jpeg"}


def is_hd(width: int, height: int) -> bool:
    """Whether players read untagged colours as BT.709, otherwise as BT.601."""
    return width >= 1280 or height > 576


def upright(picture: ndarray, orientation: tuple[bool, bool, bool]) -> ndarray:
    """A stored picture (H, W, 3): transposed, flipped vertically, flipped horizontally, in this order, where asked.

    The result is a copy that the caller may change.
    """
    transpose, vertical, horizontal = orientation
    if transpose:
        picture = picture.transpose(1, 0, 2)
    if vertical:
        picture = picture[::-1]
    if horizontal:
        picture = picture[:, ::-1]
    return np.ascontiguousarray(picture)


def deinterlace(picture: ndarray) -> ndarray:
    """An interlaced picture (H, W, 3) at the moment of one of its fields; changed in place.

    Where a line of the other field is brighter or darker than both its neighbours something has moved, and their mean
    takes its place; what stands still keeps all its lines. (FFmpeg's bwdif also needs the frames before and after.)
    """
    above = picture[:-2:2]
    line = picture[1:-1:2]
    below = picture[2::2]
    brighter = cv2.subtract(line, cv2.max(above, below))
    darker = cv2.subtract(cv2.min(above, below), line)
    moved = (cv2.max(brighter, darker) > _MIN_COMB).any(axis=2)
    mean = cv2.addWeighted(above, 0.5, below, 0.5, 0)
    line[moved] = mean[moved]
    return picture


def blend_over_white(picture: ndarray) -> ndarray:
    """(H, W, 4) RGBA uint8 -> (H, W, 3) uint8."""
    colour = picture[..., :3].astype(np.uint16)
    alpha = picture[..., 3:].astype(np.uint16)
    blended = colour * alpha + WHITE * (255 - alpha)
    return ((blended + 127) // 255).astype(np.uint8)


def needs_pillow(path: Path) -> bool:
    """Whether FFmpeg reads this picture wrongly: turned by EXIF, animated WebP, JPEG in TIFF, transparent AVIF."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as picture:
            reasons = {
                "WEBP": getattr(picture, "is_animated", False),
                "TIFF": picture.info.get("compression") in _JPEG_IN_TIFF,
                "AVIF": picture.mode == "RGBA",
            }
            is_turned = picture.getexif().get(ExifTags.Base.Orientation, 1) != 1
            return is_turned or reasons.get(picture.format or "", False)
    except (OSError, Image.DecompressionBombError):
        return False


def read_with_pillow(path: Path) -> Iterator[tuple[ndarray, float, float]]:
    """The upright frames of a picture, (H, W, 4) RGBA uint8, and from when to when each is shown, in seconds.

    Raises:
        OSError: it is damaged.
    """
    end = 0.0
    with Image.open(path) as picture:
        count = 1 if picture.format == "MPO" else None  # a camera's other pictures are of other sizes
        for frame in islice(ImageSequence.Iterator(picture), count):
            frame.load()
            start = end
            end += frame.info.get("duration", 0) / 1000
            yield np.array(ImageOps.exif_transpose(frame).convert("RGBA")), start, end
