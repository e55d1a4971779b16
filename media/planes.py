"""Reads and replaces a region of a picture as RGB, while all other samples stay exactly as decoded."""

from typing import Any, NamedTuple

import numpy as np
from numpy import ndarray

from media import ffmpeg, pictures

UNTAGGED = 2  # codes of H.273
BT709 = 1
BT601 = 6
MATRICES = {BT709, 5, BT601}
FULL_RANGE = 2
ORIGIN = np.zeros(2, int)
MARGIN = 4  # pixels around a box that are converted with it, because the conversion interpolates chroma

Picture = ndarray | ffmpeg.VideoFrame  # (H, W, 3) uint8 RGB, or samples in 4:2:0 with even sides


def matrix_of(frame: ffmpeg.VideoFrame) -> Any:
    """The colour matrix of a frame usable as decoded; None if it needs conversion (10 bits, full range, ...)."""
    if frame.format.name != "yuv420p" or frame.color_range == FULL_RANGE:
        return None
    if frame.interlaced_frame or frame.color_trc in ffmpeg.HDR:
        return None
    matrix = frame.colorspace
    if matrix == UNTAGGED:
        matrix = BT709 if pictures.is_hd(frame.width, frame.height) else BT601
    is_plain = matrix in MATRICES and frame.color_primaries in (UNTAGGED, matrix)
    return matrix if is_plain else None


class Region(NamedTuple):
    """A part of a picture, around a box."""

    corner: ndarray  # (2,) x, y of its upper left pixel in the picture
    rgb: ndarray  # (h, w, 3) uint8
    box: ndarray  # (4,) in pixels of the region


def around(picture: Picture, box: ndarray) -> Region:
    """The region that must be converted to change `box` (4,): all of an RGB picture, or part of a 4:2:0 picture."""
    if isinstance(picture, ndarray):
        return Region(ORIGIN, picture, box)
    size = [picture.width, picture.height]
    low = np.clip((box[:2] - MARGIN) // 2 * 2, 0, size)
    high = np.clip((box[2:] + MARGIN + 1) // 2 * 2, 0, size)
    width, height = map(int, high - low)
    part = ffmpeg.VideoFrame(width, height, "yuv420p")
    part.colorspace = matrix_of(picture)
    copy(picture, low, part, ORIGIN, high - low)
    return Region(low, ffmpeg.Converter(threads=1).to_rgb(part, width, height), box - np.tile(low, 2))


def replace(picture: Picture, region: Region, rgb: ndarray) -> Picture:
    """Returns the picture with the box of a region changed; `rgb` is the whole region with the new pixels."""
    if isinstance(picture, ndarray):
        return rgb
    size = np.array([picture.width, picture.height])
    frame = ffmpeg.VideoFrame(picture.width, picture.height, "yuv420p")
    frame.colorspace = matrix_of(picture)
    part = ffmpeg.Converter(threads=1).from_rgb(rgb, "yuv420p", frame.colorspace)
    low = region.box[:2]
    copy(picture, ORIGIN, frame, ORIGIN, size)
    copy(part, low, frame, low + region.corner, region.box[2:] - low)
    return frame


def copy(
    source: ffmpeg.VideoFrame, low: ndarray, target: ffmpeg.VideoFrame, target_low: ndarray, size: ndarray
) -> None:
    """Copies the samples of a box from one frame to another; chroma samples only if all their pixels are in the box."""
    old = samples(source, low, size)
    for view, new in zip(samples(target, target_low, size), old, strict=True):
        view[:] = new


def samples(frame: ffmpeg.VideoFrame, low: ndarray, size: ndarray) -> list[ndarray]:
    """Views of a frame's luma and two chroma planes in a box with upper left corner `low` (2,) and `size` (2,)."""
    views = []
    for plane, step in zip(frame.planes, (1, 2, 2), strict=True):
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)  # pyright: ignore
        x0, y0 = (low + step - 1) // step
        x1, y1 = (low + size) // step
        views.append(rows[y0:y1, x0:x1])
    return views
