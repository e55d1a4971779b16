"""Writes video files: exactly the given frames, with sound. A file is complete or does not exist."""

import contextlib
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from media import ffmpeg
from media.planes import BT601, BT709
from runtime.command_line import UserError

WRITTEN = (".mp4", ".mov", ".mkv")  # suffixes of videos that can be written
BLOCK = 4096  # samples of sound that are mixed at once
AAC_RATES = {16000, 22050, 24000, 32000, 44100, 48000}  # sample rates that every player supports
AAC_BIT_RATE = 96000  # bits a second for each channel
Sound = tuple[Path, float]


class VideoWriter(contextlib.AbstractContextManager):
    """Writes frames and sound to a file: `with VideoWriter(...) as writer: writer.write(frame)`.

    The file appears under its name only when the `with` block ends without an exception. If the width or height is odd,
    the last column or row is repeated, because H.264 needs even sides.

    Args:
        path: .mp4, .mov or .mkv.
        fps: frames a second.
        size: width and height of the frames.
        sounds: files whose sound is mixed, each with the second at which it starts. The mix is cut, or padded with
            silence, to the length of the video.
        crf: quality, 0 (best) to 51.
        lossless: store the pictures exactly (large files that not every player shows).
        matrix: colour matrix (H.273) of the 4:2:0 frames that are written or that RGB frames are converted to.
        tags: metadata of the file, such as title and comment.
        copy_sound: copy the packets of a single sound into an .mp4 or .mov if players can play them. They are not
            padded.

    Raises:
        UserError: the suffix is unknown, a file has no sound, or the video cannot be written (full disk).
    """

    def __init__(
        self,
        path: str | Path,
        fps: float,
        size: tuple[int, int],
        sounds: Sequence[Sound] = (),
        crf: int = 17,
        lossless: bool = False,
        matrix: int = BT709,
        tags: Mapping[str, str] | None = None,
        copy_sound: bool = False,
    ):
        self._path = Path(path)
        suffix = self._path.suffix.lower()
        if suffix not in WRITTEN:
            raise UserError(f"{path}: the name of a video to write must end in {' or '.join(WRITTEN)}")
        self._unfinished = self._path.with_name(f".{secrets.token_hex(6)}.part{suffix}")
        self._rate = Fraction(fps).limit_denominator(1001)
        self._size = size
        self._matrix = matrix
        self._frames = 0  # written so far
        self._samples = 0  # of sound written so far
        self._sounds: list[Iterator[ndarray]] = []  # blocks of each sound that is mixed
        self._copied: Iterator[Any] | None = None  # packets of sound, if it is copied
        self._converter = ffmpeg.Converter()
        self._sound: Any = None  # the audio stream, if there is any
        with contextlib.ExitStack() as stack, self._explain_errors():
            self._container = ffmpeg.open_output(self._unfinished)
            stack.callback(self._unfinished.unlink, missing_ok=True)
            stack.enter_context(contextlib.suppress(*ffmpeg.ERRORS))  # while closing the container
            stack.callback(self._container.close)
            self._container.metadata.update(tags or {})
            self._video = self._add_pictures(lossless, crf)
            if sounds:
                self._add_sound(stack, sounds, copy_sound)
            self._container.start_encoding()
            self._at_exit = stack.pop_all()

    def _add_pictures(self, lossless: bool, crf: int) -> Any:
        """Adds a video stream, H.264: lossless RGB, or 4:2:0."""
        # "veryfast" takes half the time of the default and costs 1.7 dB of PSNR at the same file size.
        settings = {
            "crf": str(crf),
            "preset": "veryfast",
            "rc-lookahead": "5",  # frames; each takes 8 MiB at 1080p
        }
        width, height = self._size
        video = self._container.add_stream(
            "libx264rgb" if lossless else "libx264",
            self._rate,
            settings,
            width=width + width % 2,  # H.264 needs even sides
            height=height + height % 2,
            time_base=1 / self._rate,
        )
        context: Any = video.codec_context
        if lossless:
            context.options["crf"] = "0"
            context.pix_fmt = "rgb24"
        else:
            context.colorspace = self._matrix
            context.color_primaries = self._matrix
            context.color_trc = BT709 if self._matrix == BT709 else BT601
            context.color_range = 1  # limited
        return video

    def _add_sound(self, stack: contextlib.ExitStack, sounds: Sequence[Sound], copy_sound: bool) -> None:
        """Adds an audio stream: a copy, or AAC at the first sound's rate (48 kHz if not every player supports that)."""
        sources: list[Any] = []
        for path, _ in sounds:
            sources.append(stack.enter_context(ffmpeg.open_input(path)))
            if sources[-1].sound is None:
                raise UserError(f"{path} has no sound")
        first = sources[0].sound
        if copy_sound and len(sounds) == 1 and sounds[0][1] == 0 and self._unfinished.suffix != ".mkv":
            self._copied = sources[0].sound_to_copy()
        if self._copied:
            self._sound = self._container.add_stream_from_template(first)
            return
        rate = first.rate if first.rate in AAC_RATES else 48000
        channels = min(2, max(source.sound.channels for source in sources))
        layout = "mono" if channels == 1 else "stereo"
        self._sound = self._container.add_stream("aac", rate, layout=layout, bit_rate=channels * AAC_BIT_RATE)
        for source, (_, start) in zip(sources, sounds, strict=True):
            self._sounds.append(blocks(source.sound_pieces(rate, layout), round(start * rate), channels))

    def write(self, frame: ndarray | ffmpeg.VideoFrame) -> None:
        """Adds a frame: (H, W, 3) uint8 RGB, or a 4:2:0 frame of this size."""
        if isinstance(frame, ndarray):
            width, height = self._size
            if frame.shape != (height, width, 3):  # FFmpeg would stretch it
                raise ValueError(f"frames must be uint8 of {(height, width, 3)}, not {frame.dtype} of {frame.shape}")
            if width % 2 or height % 2:
                frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            frame = self._converter.from_rgb(frame, self._video.pix_fmt, self._matrix)
        frame.pict_type = 0  # the encoder chooses; a decoded frame has a type
        frame.pts = self._frames
        frame.time_base = 1 / self._rate
        with self._explain_errors():
            self._container.mux(self._video.encode(frame))
            self._frames += 1
            if self._sound:
                self._write_sound(least=BLOCK)

    def _write_sound(self, least: int) -> None:
        """Writes sound while at least `least` samples are missing up to the end of the last frame."""
        end = round(self._frames / self._rate * self._sound.rate)
        while end - self._samples >= least:
            if self._copied:
                packet = next(self._copied, None)
                if packet is None:
                    return
                self._samples = round((packet.pts + packet.duration) * packet.time_base * self._sound.rate)
                packet.stream = self._sound
                self._container.mux(packet)
            else:
                mixed = np.sum([next(sound) for sound in self._sounds], axis=0).clip(-1, 1)
                frame = ffmpeg.sound_frame(mixed[:, : end - self._samples], self._sound, self._samples)
                self._container.mux(self._sound.encode(frame))
                self._samples += frame.samples

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._at_exit:
            if kind is not None:
                return
            if self._frames == 0:
                raise ValueError(f"{self._path}: no frame was written")
            with self._explain_errors():
                self._container.mux(self._video.encode(None))
                if self._sound:
                    self._write_sound(least=1)
                if self._sounds:
                    self._container.mux(self._sound.encode(None))
                self._container.close()
                os.replace(self._unfinished, self._path)

    @contextlib.contextmanager
    def _explain_errors(self) -> Iterator[None]:
        try:
            yield
        except ffmpeg.ERRORS as error:
            raise UserError(f"{self._path} cannot be written: {ffmpeg.reason(error)}") from error


def blocks(pieces: Iterable[ndarray], delay: int, channels: int) -> Iterator[ndarray]:
    """Turns a sound in pieces (channels, n) into an endless series of blocks (channels, `BLOCK`).

    `delay` samples of silence come first, and silence without end comes after the sound.
    """
    silence = np.zeros((channels, BLOCK), np.float32)
    pending = silence[:, : delay % BLOCK]
    for piece in chain(repeat(silence, delay // BLOCK), pieces, repeat(silence)):
        pending = np.concatenate([pending, piece], axis=1)
        while pending.shape[1] >= BLOCK:
            yield pending[:, :BLOCK]
            pending = pending[:, BLOCK:]
