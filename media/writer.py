"""Writing video files: exactly the frames that are given, with sound, whole or not at all."""

import contextlib
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import zip_longest
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy import ndarray

from media import ffmpeg
from media.audio import SAMPLE_RATE
from media.planes import BT709
from runtime.command_line import UserError

WRITTEN = (".mp4", ".mov", ".mkv")  # suffixes of videos that can be written
ENCODERS = {"h264": "libx264", "hevc": "libx265"}
BLOCK = 4096  # samples of sound that are mixed at once


class VideoWriter:
    """Writes frames and sound to a file: `with VideoWriter(...) as writer: writer.write(frame)`.

    The file appears under its name only when the `with` block ends without an exception. Odd
    sizes get their last row or column twice, as H.264 needs even ones.

    Args:
        path: .mp4, .mov or .mkv.
        fps: frames a second.
        size: width and height of the frames.
        audio: a file to take the sound from, at its own quality, or mono samples (S,) in [-1, 1] at `SAMPLE_RATE`. It
            starts with the first frame and is cut, or padded with silence, to the length of the video. Or several files
            with the seconds at which they start; these are mixed.
        crf: quality, 0 (best) to 51.
        codec: "h264", or "hevc": smaller files, three times as slow.
        lossless: store the pictures exactly (large files, which not every player shows).
        matrix: of colours (H.273), in frames in 4:2:0 and in those that RGB is converted to.
        tags: metadata of the file, such as title and comment.

    Raises:
        UserError: another suffix, a file without sound, or a place where nothing can be written (full disk).
    """

    def __init__(
        self,
        path: str | Path,
        fps: float,
        size: tuple[int, int],
        audio: str | Path | ndarray | Sequence[tuple[Path, float]] | None = None,
        crf: int = 17,
        codec: str = "h264",
        lossless: bool = False,
        matrix: int = BT709,
        tags: Mapping[str, str] | None = None,
    ):
        self._path = Path(path)
        suffix = self._path.suffix.lower()
        if suffix not in WRITTEN:
            raise UserError(f"{path}: the name of a video to write must end in {' or '.join(WRITTEN)}")
        self._unfinished = self._path.with_name(f".{secrets.token_hex(6)}.part{suffix}")
        self._rate = Fraction(fps).limit_denominator(1001)
        self._size = size
        self._audio = audio
        self._crf = crf
        self._codec = codec
        self._lossless = lossless
        self._matrix = matrix
        self._tags = tags or {}
        self._frames = 0  # written so far
        self._samples = 0  # of sound, written so far
        self._pending = np.zeros((1, 0), np.float32)  # sound (channels, n) to be written next
        self._converter = ffmpeg.Converter()
        self._container: Any = None
        self._sound: Any = None  # the stream of sound, if there is any

    def __enter__(self) -> Self:
        encoder = "libx264rgb" if self._lossless else ENCODERS[self._codec]
        with contextlib.ExitStack() as stack, self._explain_errors():
            stack.callback(self._discard)
            self._container, self._video = ffmpeg.open_output(
                self._unfinished, self._rate, self._size, encoder, self._crf, self._matrix
            )
            self._container.metadata.update(self._tags)
            if self._codec == "hevc" and not self._lossless:
                self._video.codec_context.codec_tag = "hvc1"  # Apple's players know it by this name only
            if isinstance(self._audio, ndarray):
                self._sound = ffmpeg.add_sound(self._container, SAMPLE_RATE, 1)
                self._pieces = iter([self._audio[None].astype(np.float32)])
            elif isinstance(self._audio, str | Path):
                self._add_sounds(stack, [(Path(self._audio), 0.0)])
            elif self._audio is not None:
                self._add_sounds(stack, self._audio)
            self._container.start_encoding()
            self._at_exit = stack.pop_all()
        return self

    def _add_sounds(self, stack: contextlib.ExitStack, sounds: Sequence[tuple[Path, float]]) -> None:
        """Adds a stream of sound that mixes these files, each from its second on."""
        sources = []
        for path, start in sounds:
            file = stack.enter_context(ffmpeg.open_input(path))
            stream = ffmpeg.sound_stream(file)
            if stream is None:
                raise UserError(f"{path} has no sound")
            sources.append((file, stream, start))
        channels = max(stream.channels for _, stream, _ in sources)
        self._sound = ffmpeg.add_sound(self._container, sources[0][1].rate, channels)
        rate = self._sound.rate
        layout = self._sound.layout
        delayed = []
        for file, stream, start in sources:
            pieces = ffmpeg.sound_pieces(file, stream, rate, layout.name, [])
            delayed.append(blocks(pieces, round(start * rate), layout.nb_channels))
        self._pieces = mix(delayed)

    def write(self, frame: ndarray | ffmpeg.VideoFrame) -> None:
        """Adds a frame, (H, W, 3) uint8 RGB, or one of this size in 4:2:0."""
        picture = self._convert(frame) if isinstance(frame, ndarray) else frame
        picture.pict_type = 0  # not the decoder's
        picture.pts = self._frames
        picture.time_base = 1 / self._rate
        with self._explain_errors():
            self._container.mux(self._video.encode(picture))
            self._frames += 1
            if self._sound:
                self._write_sound(round(self._frames / self._rate * self._sound.rate))

    def _convert(self, frame: ndarray) -> ffmpeg.VideoFrame:
        width, height = self._size
        if frame.shape != (height, width, 3) or frame.dtype != np.uint8:
            raise ValueError(f"a frame must be uint8 of shape {(height, width, 3)}, not {frame.dtype} of {frame.shape}")
        if width % 2 or height % 2:
            frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        return self._converter.from_rgb(frame, self._video.pix_fmt, self._matrix)

    def _write_sound(self, end: int) -> None:
        """Writes sound up to sample `end`, silence where the source has no more."""
        while self._samples < end:
            missing = end - self._samples
            if self._pending.shape[1] == 0:
                silence = np.zeros((self._sound.layout.nb_channels, missing), np.float32)
                self._pending = next(self._pieces, silence)
            piece = self._pending[:, :missing]
            self._pending = self._pending[:, missing:]
            frame = ffmpeg.sound_frame(piece, self._sound, self._samples)
            self._container.mux(self._sound.encode(frame))
            self._samples += piece.shape[1]

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._at_exit:
            if kind is not None:
                return
            if self._frames == 0:
                raise ValueError(f"{self._path}: no frame was written")
            with self._explain_errors():
                self._container.mux(self._video.encode(None))
                if self._sound:
                    self._container.mux(self._sound.encode(None))
                self._container.close()
                os.replace(self._unfinished, self._path)

    def _discard(self) -> None:
        """Closes and removes the unfinished file, if there is one."""
        with contextlib.suppress(*ffmpeg.ERRORS):
            if self._container:
                self._container.close()
        self._unfinished.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _explain_errors(self) -> Iterator[None]:
        try:
            yield
        except ffmpeg.ERRORS as error:
            raise UserError(f"{self._path} cannot be written: {ffmpeg.reason(error)}") from error


def blocks(pieces: Iterable[ndarray], delay: int, channels: int) -> Iterator[ndarray]:
    """Cuts a sound in pieces (channels, n) into blocks (channels, `BLOCK`), after `delay` samples of silence."""
    silence = np.zeros((channels, BLOCK), np.float32)
    for _ in range(delay // BLOCK):
        yield silence
    pending = silence[:, : delay % BLOCK]
    for piece in pieces:
        pending = np.concatenate([pending, piece], axis=1)
        while pending.shape[1] >= BLOCK:
            yield pending[:, :BLOCK]
            pending = pending[:, BLOCK:]
    yield np.pad(pending, ((0, 0), (0, BLOCK - pending.shape[1])))


def mix(sounds: Sequence[Iterator[ndarray]]) -> Iterator[ndarray]:
    """Adds up sounds in blocks of one shape, as long as the longest of them lasts."""
    for together in zip_longest(*sounds):
        present = [block for block in together if block is not None]
        yield np.sum(present, axis=0).clip(-1, 1)
