"""Small videos whose frames carry their own number, and sounds with clicks at known times."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

WIDTH, HEIGHT = 64, 48
BITS = 8


def numbered(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """A picture that shows a number below 256 as eight black or white columns."""
    bits = (number >> np.arange(BITS)) & 1
    columns = np.repeat(np.where(bits, 235, 20), width // BITS)
    columns = np.pad(columns, (0, width - len(columns)), mode="edge").astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(columns[None, :, None], (height, width, 3)))


def number(picture: np.ndarray) -> int:
    """The number that a picture shows."""
    width = picture.shape[1] // BITS
    columns = picture[:, : width * BITS, 1].reshape(picture.shape[0], BITS, width).mean((0, 2))
    return int(((columns > 128) << np.arange(BITS)).sum())


def numbers(pictures: Iterable[np.ndarray]) -> list[int]:
    return [number(picture) for picture in pictures]


def clicks(seconds: float, times: Iterable[float], rate: int = 48000, channels: int = 1) -> np.ndarray:
    """Sound (channels, samples), silent except for a millisecond of 4 kHz around each time."""
    sound = np.zeros((channels, round(seconds * rate)), np.float32)
    for time in times:
        near = np.arange(max(0, round((time - 0.002) * rate)), min(sound.shape[1], round((time + 0.002) * rate)))
        distance = near / rate - time
        sound[:, near] = 0.9 * np.cos(2 * np.pi * 4000 * distance) * np.exp(-((distance / 0.0003) ** 2))
    return sound


def click_times(wav: np.ndarray, rate: int = 16000) -> list[float]:
    """The times of the clicks in mono sound, in seconds."""
    times, wav = [], np.abs(wav.copy())
    while wav.size and wav.max() > 0.2:
        peak = int(wav.argmax())
        times.append(peak / rate)
        wav[max(0, peak - rate // 50) : peak + rate // 50] = 0
    return sorted(times)


def write(
    path: Path,
    pictures: Iterable[np.ndarray],
    rate: Fraction | int = 25,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    times: Iterable[float] | None = None,
    sound: np.ndarray | None = None,
    sound_codec: str = "aac",
    sound_rate: int = 48000,
    sound_layout: str = "mono",
    sound_start: float = 0,
    options: dict[str, str] | None = None,
    rotation: tuple[float, bool, bool] = (0, False, False),
    colours: dict[str, int] | None = None,
) -> Path:
    """Writes a file with FFmpeg itself, in any container and codec; `times` of the frames are in seconds."""
    pictures = list(pictures)
    shown = [float(k / rate) for k in range(len(pictures))] if times is None else list(times)
    clock = Fraction(1, 90000)
    video: Any = None
    audio: Any = None
    sounding: Any = None
    with av.open(str(path), "w") as container:
        if pictures:
            video = container.add_stream(codec, rate, {"preset": "ultrafast"} if "264" in codec else {})
            video.options.update(options or {})
            video.height, video.width = pictures[0].shape[:2]
            video.pix_fmt = pixels
            if times is not None:
                video.codec_context.time_base = clock
            if rotation != (0, False, False):
                video.set_display_rotation(*rotation)
            for name, value in (colours or {}).items():
                setattr(video.codec_context, name, value)
        if sound is not None:
            audio = container.add_stream(sound_codec, sound_rate)
            audio.layout = sound_layout
            sounding = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound.astype(np.float32)), "fltp", sound_layout)
            sounding.sample_rate, sounding.time_base = sound_rate, Fraction(1, sound_rate)
            sounding.pts = round(sound_start * sound_rate)
        for index, (picture, time) in enumerate(zip(pictures, shown, strict=True)):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            if pixels != "rgb24":
                frame = frame.reformat(format=pixels)
            frame.pts, frame.time_base = (index, 1 / Fraction(rate)) if times is None else (round(time * 90000), clock)
            container.mux(video.encode(frame))
        if pictures:
            container.mux(video.encode())
        if sound is not None:
            container.mux(audio.encode(sounding))
            container.mux(audio.encode(None))
    return path
