"""Still pictures."""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np

from command_line import UserError
from media import ffmpeg
from media.audio import FPS


def is_picture(path: str | Path) -> bool:
    """Whether a file is a still picture (an animated GIF is a video). Raises a UserError if it can't be opened."""
    ffmpeg.check_file(Path(path))
    with open(path, "rb") as file:
        head = file.read(4)
    try:
        str(path).encode()  # OpenCV crashes on names that are not UTF-8
    except UnicodeEncodeError:
        raise UserError(f"{path}: its name is not UTF-8; rename it") from None
    return head != b"GIF8" and cv2.haveImageReader(str(path))


def read_picture(path: str | Path) -> np.ndarray:
    """A still picture as (H, W, 3) uint8 RGB, upright.

    Raises:
        UserError: no such file, a folder, no permission, or not a picture.
    """
    ffmpeg.check_file(Path(path))
    picture, data = None, np.fromfile(path, np.uint8)
    with contextlib.suppress(cv2.error):  # for instance an absurd size
        picture = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)
    if picture is None:
        raise UserError(f"{path} is not a picture, or is damaged; give a JPEG, PNG or WebP file")
    if data[8:12].tobytes() == b"WEBP":  # OpenCV turns only the others; FFmpeg cannot read animated ones
        with contextlib.suppress(UserError), ffmpeg.open_input(Path(path)) as container:
            stream = ffmpeg.picture_stream(container)
            frame = next(ffmpeg.decode(container, stream, []), None) if stream else None
            return ffmpeg.upright(picture, ffmpeg.orientation(frame)) if frame else picture
    return picture


class Picture:
    """A still picture, as a video of one frame: it has what a `Video` needs to be dubbed."""

    fps, damage = FPS, None

    def __init__(self, path: Path) -> None:
        self.frame = read_picture(path)

    def __iter__(self) -> Iterator[np.ndarray]:
        yield self.frame

    def frames(self, indices: Iterable[int]) -> Iterator[np.ndarray]:
        return (self.frame for _ in indices)
