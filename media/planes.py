"""Pictures whose boxes are read and replaced as RGB, while all other samples stay as the decoder gave them."""

import threading
from typing import NamedTuple, Self

import numpy as np

from media import ffmpeg

UNTAGGED = 2  # H.273's codes of colours
BT709 = 1
BT601 = 6
MATRICES = {BT709, 5, BT601}
HDR = {16, 18}  # transfer functions
FULL_RANGE = 2
MARGIN = 4  # pixels around a box that are converted with it, as colours are interpolated


class Colours(NamedTuple):
    """What samples in limited range mean: codes of H.273."""

    matrix: int = BT709
    primaries: int = BT709
    transfer: int = BT709


DEFAULT = Colours()


def colours_of(frame: ffmpeg.VideoFrame) -> Colours | None:
    """The colours of a frame that may stay as it is; None if it must be converted (10 bits, full range, HDR, ...)."""
    if frame.format.name != "yuv420p" or frame.color_range == FULL_RANGE or frame.interlaced_frame:
        return None
    matrix = frame.colorspace
    if matrix == UNTAGGED:
        matrix = BT709 if ffmpeg.is_hd(frame.width, frame.height) else BT601
    if matrix not in MATRICES or frame.color_trc in HDR:
        return None
    primaries = matrix if frame.color_primaries == UNTAGGED else frame.color_primaries
    transfer = frame.color_trc
    if transfer == UNTAGGED:
        transfer = BT709 if matrix == BT709 else BT601
    return Colours(matrix, primaries, transfer)


class _Local(threading.local):
    """Of each thread."""

    def __init__(self) -> None:
        self.converter = ffmpeg.Converter(threads=1)


_LOCAL = _Local()


class RgbPicture(NamedTuple):
    """A picture that is RGB throughout."""

    frame: np.ndarray  # (H, W, 3) uint8

    def region(self, box: np.ndarray) -> np.ndarray:
        """The box (4,) to read and replace so that `box` can be changed."""
        height, width, _ = self.frame.shape
        return np.array([0, 0, width, height])

    def read(self, region: np.ndarray) -> np.ndarray:
        """(h, w, 3) uint8 RGB."""
        return self.frame

    def replace(self, region: np.ndarray, rgb: np.ndarray, box: np.ndarray) -> Self:
        """The picture with another region, of which only `box` differs."""
        return self._replace(frame=rgb)


class Planes(NamedTuple):
    """A picture of 4:2:0 samples with even sides. The methods are those of `RgbPicture`."""

    frame: ffmpeg.VideoFrame
    colours: Colours

    def region(self, box: np.ndarray) -> np.ndarray:
        even = np.array([box[0], box[1], box[2] + 1, box[3] + 1]) // 2 * 2
        outside = np.array([-MARGIN, -MARGIN, MARGIN, MARGIN])
        return np.clip(even + outside, 0, [self.frame.width, self.frame.height] * 2)

    def read(self, region: np.ndarray) -> np.ndarray:
        width, height = (int(side) for side in region[2:] - region[:2])
        part = ffmpeg.VideoFrame(width, height, "yuv420p")
        part.colorspace = self.colours.matrix
        for source, target, box in zip(samples(self.frame), samples(part), boxes(region), strict=True):
            target[:] = source[box]
        return _LOCAL.converter.to_rgb(part, width, height)

    def replace(self, region: np.ndarray, rgb: np.ndarray, box: np.ndarray) -> Self:
        part = _LOCAL.converter.from_rgb(rgb, "yuv420p", self.colours.matrix)
        frame = ffmpeg.VideoFrame(self.frame.width, self.frame.height, "yuv420p")
        inner = box - np.tile(region[:2], 2)
        planes = zip(samples(self.frame), samples(frame), samples(part), boxes(box), boxes(inner), strict=True)
        for source, target, new, outer_box, inner_box in planes:
            target[:] = source
            target[outer_box] = new[inner_box]
        return self._replace(frame=frame)


def samples(frame: ffmpeg.VideoFrame) -> list[np.ndarray]:
    """Views of a frame's luma (H, W) and colour planes (H/2, W/2)."""
    planes = []
    for plane in frame.planes:
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)  # pyright: ignore
        planes.append(rows[: plane.height, : plane.width])
    return planes


def boxes(box: np.ndarray) -> list[tuple[slice, slice]]:
    """Where the samples inside a box (4,) are in the planes of luma and colours."""
    x0, y0, x1, y1 = (int(side) for side in box)
    luma = (slice(y0, y1), slice(x0, x1))
    colour = (slice((y0 + 1) // 2, y1 // 2), slice((x0 + 1) // 2, x1 // 2))
    return [luma, colour, colour]
