"""Writing video files: exactly the frames that are given, with sound, whole or not at all."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import numpy as np

from media import ffmpeg
from media.audio import SAMPLE_RATE
from runtime.command_line import UserError

WRITTEN = (".mp4", ".mov", ".mkv")  # suffixes of videos that can be written


class VideoWriter:
    """Writes RGB frames and sound to an H.264/AAC file: `with VideoWriter(...) as writer: writer.write(frame)`.

    The file appears under its name only when the `with` block ends well; after an exception there is none. Colours are
    tagged BT.709; of odd sizes the last row or column is doubled, as H.264 needs.

    Args:
        path: .mp4, .mov or .mkv.
        fps: frames a second.
        size: width and height of the frames.
        audio: a file to take the sound from, at its own quality, or mono samples (S,) in [-1, 1] at `SAMPLE_RATE`. It
            starts with the first frame, and is cut or padded with silence to the length of the video.
        crf: quality, 0 (best) to 51.
        lossless: store the pictures exactly (large files, which not every player shows).

    Raises:
        UserError: another name ending, a file without sound, or a place where nothing can be written (full disk).
    """

    def __init__(
        self, path: str | Path, fps: float, size: tuple[int, int], audio: str | Path | np.ndarray | None = None,
        crf: int = 17, lossless: bool = False,
    ):  # fmt: skip
        self._path = Path(path)
        if self._path.suffix.lower() not in WRITTEN:
            raise UserError(f"{path}: the name of a video to write must end in {' or '.join(WRITTEN)}")
        self._temporary = self._path.with_name(f".{secrets.token_hex(6)}.part{self._path.suffix.lower()}")
        self._rate = Fraction(fps).limit_denominator(1001)
        self._size, self._audio, self._crf, self._lossless = size, audio, crf, lossless
        self._frames = self._samples = 0  # written so far
        self._pending = np.zeros((1, 0), np.float32)  # sound (channels, n) that is next to be written
        self._converter = ffmpeg.Converter()
        self._container: Any = None
        self._track: Any = None  # the stream of sound, if there is any

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack, self._explained():
            stack.callback(self._discard)
            output = ffmpeg.open_output(self._temporary, self._rate, self._size, self._crf, self._lossless)
            self._container, self._video = output
            if isinstance(self._audio, np.ndarray):
                self._track = ffmpeg.add_sound(self._container, SAMPLE_RATE, 1)
                self._sound = iter([self._audio[None].astype(np.float32)])
            elif self._audio is not None:
                file = stack.enter_context(ffmpeg.open_input(Path(self._audio)))
                source = ffmpeg.sound_stream(file)
                if source is None:
                    raise UserError(f"{self._audio} has no sound")
                self._track = ffmpeg.add_sound(self._container, source.rate, source.channels)
                self._sound = ffmpeg.sound_pieces(file, source, self._track.rate, self._track.layout.name, [])
            self._container.start_encoding()
            self._at_the_end = stack.pop_all()
        return self

    def write(self, frame: np.ndarray) -> None:
        """Adds a frame, (H, W, 3) uint8 RGB."""
        width, height = self._size
        if frame.shape != (height, width, 3) or frame.dtype != np.uint8:
            raise ValueError(f"a frame must be uint8 of shape {(height, width, 3)}, not {frame.dtype} of {frame.shape}")
        even = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        picture = self._converter.from_rgb(even, self._video.pix_fmt)
        picture.pts, picture.time_base = self._frames, 1 / self._rate
        with self._explained():
            self._container.mux(self._video.encode(picture))
            self._frames += 1
            if self._track:
                self._write_sound(round(self._frames / self._rate * self._track.rate))

    def _write_sound(self, end: int) -> None:
        """Writes sound up to sample `end`, silence where the source has no more."""
        while self._samples < end:
            if self._pending.shape[1] == 0:
                silence = np.zeros((self._track.layout.nb_channels, end - self._samples), np.float32)
                self._pending = next(self._sound, silence)
            piece, self._pending = np.split(self._pending, [end - self._samples], axis=1)
            sound = ffmpeg.sound_frame(piece, self._track, self._samples)
            self._container.mux(self._track.encode(sound))
            self._samples += piece.shape[1]

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._at_the_end:
            if kind is None:
                if self._frames == 0:
                    raise ValueError(f"{self._path}: no frame was written")
                with self._explained():
                    for stream in filter(None, (self._video, self._track)):
                        self._container.mux(stream.encode(None))
                    self._container.close()
                    os.replace(self._temporary, self._path)

    def _discard(self) -> None:
        with contextlib.suppress(*ffmpeg.ERRORS):
            if self._container:
                self._container.close()
        self._temporary.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except ffmpeg.ERRORS as error:
            raise UserError(f"{self._path} cannot be written: {ffmpeg.reason(error)}") from error
