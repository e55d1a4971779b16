"""Pictures as arrays: orientation, deinterlacing, transparency, and formats that only Pillow reads correctly."""

import io
import warnings
from pathlib import Path

import cv2
import numpy as np
from numpy import ndarray
from PIL import ExifTags, Image, ImageOps, ImageSequence

WHITE = 255
_MIN_COMB = 8  # grey levels by which a line of the other field stands out where something has moved


def is_hd(width: int, height: int) -> bool:
    """Whether players read untagged colours in a picture of this size as BT.709, not as BT.601."""
    return width >= 1280 or height > 576


def upright(picture: ndarray, orientation: tuple[bool, bool, bool]) -> ndarray:
    """Transposes a stored picture (H, W, 3), flips it vertically and flips it horizontally, in this order, where set.

    Returns a contiguous array; it is `picture` itself if nothing changes.
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
    """Deinterlaces a picture (H, W, 3) in place, so that it shows the moment of one of its fields.

    Where a line of the other field is brighter or darker than both its neighbours, something has moved, and their mean
    replaces it. Still parts keep all their lines. (FFmpeg's bwdif would also need the frames before and after.)
    """
    above = picture[:-2:2]
    line = picture[1:-1:2]
    below = picture[2::2]
    between = line.clip(cv2.min(above, below), cv2.max(above, below))
    moved = (cv2.absdiff(line, between) > _MIN_COMB).any(axis=2)
    mean = cv2.addWeighted(above, 0.5, below, 0.5, 0)
    line[moved] = mean[moved]
    return picture


def blend_over_white(picture: ndarray) -> ndarray:
    """(H, W, 4) RGBA uint8 -> (H, W, 3) uint8."""
    alpha = picture[..., 3:] / np.float32(255)
    blended = alpha * picture[..., :3] + (1 - alpha) * WHITE
    return np.rint(blended).astype(np.uint8)


def as_png(path: Path) -> io.BytesIO | None:
    """Copies a picture that FFmpeg reads wrongly: one rotated by EXIF, an animated WebP, a TIFF or a transparent AVIF.

    Returns an upright PNG with the same frame durations; None for other pictures and for damaged ones.
    """
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as picture:
            is_turned = picture.getexif().get(ExifTags.Base.Orientation, 1) != 1
            is_animated = picture.format == "WEBP" and getattr(picture, "is_animated", False)
            is_transparent = picture.format == "AVIF" and picture.mode == "RGBA"
            if not (is_turned or is_animated or is_transparent or picture.format == "TIFF"):
                return None
            durations = []  # milliseconds
            for frame in ImageSequence.Iterator(picture):
                frame.load()
                durations.append(frame.info.get("duration", 0))
            picture.seek(0)
            copy = io.BytesIO()
            upright = picture if is_animated else ImageOps.exif_transpose(picture)
            upright.save(copy, "PNG", save_all=is_animated, duration=durations, compress_level=1)
    except Exception:  # damaged, or far too large: Pillow's decoders have errors of many kinds
        return None
    copy.seek(0)
    return copy
