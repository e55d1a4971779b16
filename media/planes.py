"""Pictures of which a region is read and replaced as RGB, while all other samples stay as the decoder gave them."""

from typing import NamedTuple

import numpy as np
from numpy import ndarray

from media import ffmpeg, pictures

UNTAGGED = 2  # codes of H.273
BT709 = 1
BT601 = 6
MATRICES = {BT709, 5, BT601}
HDR = {16, 18}  # transfer functions
FULL_RANGE = 2
MARGIN = 4  # pixels around a box that are converted with it, as colours are interpolated


def matrix_of(frame: ffmpeg.VideoFrame) -> int | None:
    """The colour matrix of a frame that may stay as it is; None if it must be converted (10 bits, full range, ...)."""
    if frame.format.name != "yuv420p" or frame.color_range == FULL_RANGE:
        return None
    if frame.interlaced_frame or frame.color_trc in HDR:
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
    box: ndarray  # (4,) in the region


class RgbPicture(NamedTuple):
    """A picture that is RGB throughout: one region."""

    frame: ndarray  # (H, W, 3) uint8

    def around(self, box: ndarray) -> Region:
        """The region to change in order to change `box` (4,)."""
        return Region(np.zeros(2, int), self.frame, box)

    def replace(self, region: Region, rgb: ndarray) -> "RgbPicture":
        """The picture with other pixels `rgb` in the box of a region."""
        return RgbPicture(rgb)


class Planes(NamedTuple):
    """A picture of 4:2:0 samples with even sides. The methods are those of `RgbPicture`."""

    frame: ffmpeg.VideoFrame
    matrix: int

    def around(self, box: ndarray) -> Region:
        size = [self.frame.width, self.frame.height]
        low = np.clip((box[:2] - MARGIN) // 2 * 2, 0, size)
        high = np.clip((box[2:] + MARGIN + 1) // 2 * 2, 0, size)
        width, height = map(int, high - low)
        part = ffmpeg.VideoFrame(width, height, "yuv420p")
        part.colorspace = self.matrix
        for source, target, inside in zip(samples(self.frame), samples(part), slices(low, high), strict=True):
            target[:] = source[inside]
        return Region(low, ffmpeg.Converter(threads=1).to_rgb(part, width, height), box - np.tile(low, 2))

    def replace(self, region: Region, rgb: ndarray) -> "Planes":
        part = ffmpeg.Converter(threads=1).from_rgb(rgb, "yuv420p", self.matrix)
        frame = ffmpeg.VideoFrame(self.frame.width, self.frame.height, "yuv420p")
        low = region.box[:2]
        high = region.box[2:]
        sources = slices(low, high)
        targets = slices(low + region.corner, high + region.corner)
        planes = zip(samples(self.frame), samples(frame), samples(part), targets, sources, strict=True)
        for old, target, new, target_slices, source_slices in planes:
            target[:] = old
            target[target_slices] = new[source_slices]
        return Planes(frame, self.matrix)


def samples(frame: ffmpeg.VideoFrame) -> list[ndarray]:
    """Views of a frame's luma (H, W) and of its two colour planes (H/2, W/2)."""
    planes = []
    for plane in frame.planes:
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)  # pyright: ignore
        planes.append(rows[: plane.height, : plane.width])
    return planes


def slices(low: ndarray, high: ndarray) -> list[tuple[slice, slice]]:
    """Where the samples of the box from `low` to `high` (x, y) are in the planes of luma and colours."""
    luma = (slice(low[1], high[1]), slice(low[0], high[0]))
    first = (low + 1) // 2
    end = high // 2
    colour = (slice(first[1], end[1]), slice(first[0], end[0]))
    return [luma, colour, colour]
