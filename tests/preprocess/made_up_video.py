"""Synthetic videos of a swaying face, with a tone."""

from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from skimage.data import astronaut

RATE = 16000


@cache
def portrait() -> np.ndarray:
    """A public-domain face, (240, 240, 3) uint8 RGB."""
    return astronaut()[0:240, 110:350]


def face_frame(index: int, size: tuple[int, int] = (160, 160)) -> np.ndarray:
    """The portrait, moved by a few pixels: (H, W, 3) uint8 RGB for a size of (W, H)."""
    turn = np.array([[1, 0, 6 * np.sin(index / 3)], [0, 1, 4 * np.cos(index / 4)]], np.float32)
    moved = cv2.warpAffine(portrait(), turn, (240, 240), borderMode=cv2.BORDER_REFLECT)
    return cv2.resize(moved, size, interpolation=cv2.INTER_AREA)


def tone(seconds: float, rate: int = RATE, channels: int = 1) -> np.ndarray:
    """(channels, S) float32."""
    time = np.arange(round(seconds * rate)) / rate
    wave = 0.3 * np.sin(2 * np.pi * 300 * time) * (1 + np.sin(2 * np.pi * 3 * time))
    return np.tile(wave.astype(np.float32), (channels, 1))


def write_video(
    path: Path,
    frames: list[np.ndarray] | int = 12,
    fps: float = 25,
    times: list[float] | None = None,
    sound: np.ndarray | str | None = "tone",
    rate: int = RATE,
    sound_start: float = 0.0,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
    rotation: int = 0,
) -> Path:
    """Writes `frames` (a number: of the swaying face), at `times` in seconds if the rate varies, with sound (C, S)."""
    pictures = [face_frame(k) for k in range(frames)] if isinstance(frames, int) else frames
    if isinstance(sound, str):
        sound = tone(len(pictures) / fps, rate)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as file:
        height, width = pictures[0].shape[:2]
        video: Any = file.add_stream(codec, rate=Fraction(fps).limit_denominator(1001), options=options or {})
        video.width, video.height, video.pix_fmt = width, height, pixels
        video.codec_context.time_base = Fraction(1, 90000)
        if rotation:
            video.set_display_rotation(rotation, False, False)
        audio: Any = None
        if sound is not None:
            layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(sound)]
            audio = file.add_stream("aac", rate=rate, layout=layout)
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pixels)
            time = times[index] if times else index / fps
            frame.pts, frame.time_base, frame.duration = round(time * 90000), Fraction(1, 90000), round(90000 / fps)
            file.mux(video.encode(frame))
        file.mux(video.encode())
        if audio is not None and sound is not None:
            for start in range(0, sound.shape[1], 1024):  # one frame of the encoder at a time
                block = np.ascontiguousarray(sound[:, start : start + 1024])
                chunk = av.AudioFrame.from_ndarray(block, format="fltp", layout=audio.layout.name)
                chunk.sample_rate, chunk.time_base = rate, Fraction(1, rate)
                chunk.pts = start + round(sound_start * rate)
                file.mux(audio.encode(chunk))
            file.mux(audio.encode())
    return path


def write_wav(path: Path, sound: np.ndarray, rate: int = RATE) -> Path:
    """Writes sound (C, S) as 16-bit PCM."""
    import wave

    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(sound))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((sound.T * 32767).astype("<i2").tobytes())
    return path


PQ = "colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc"
UNUSUAL: dict[str, dict[str, Any]] = {  # name -> arguments of `write_video`; each video becomes a clip
    "60 fps": {"fps": 60, "frames": 24},
    "29.97 fps": {"fps": 30000 / 1001, "frames": 12},
    "odd sizes": {"frames": [face_frame(k, (161, 163)) for k in range(6)], "codec": "libx264rgb", "pixels": "rgb24"},
    "10-bit": {"frames": 6, "pixels": "yuv420p10le"},
    "HDR": {"frames": 6, "pixels": "yuv420p10le", "options": {"x264-params": PQ}},
    "8 kHz": {"frames": 6, "rate": 8000},
    "5.1 sound": {"frames": 6, "sound": tone(0.24, 48000, 6), "rate": 48000},
    "variable rate": {"times": [*np.arange(6) * 0.04, *0.24 + np.arange(6) * 0.08], "frames": 12, "sound": tone(0.72)},
    "late sound": {"frames": 12, "sound_start": 0.2},
    "short sound": {"frames": 20, "sound": tone(0.5)},
    "one frame": {"frames": 1, "sound": tone(0.1)},
    "turned by a phone": {"frames": [np.rot90(face_frame(k), -1).copy() for k in range(6)], "rotation": 90},
    'it\'s "quoted" 話す': {"frames": 6},
}


def write_unusable_videos(folder: Path) -> dict[str, str]:
    """Writes every kind of file that cannot become a clip -> the reason that the report must give, by name."""
    good = write_video(folder / "cut off.mp4", 8).read_bytes()
    (folder / "cut off.mp4").write_bytes(good[: len(good) // 2])
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("not a video\n" * 100)
    write_wav(folder / "sound only.mp4", tone(1.0))
    write_video(folder / "no sound.mp4", 2, sound=None)
    write_video(folder / "nobody.mp4", [np.full((160, 160, 3), 90, np.uint8)] * 5)
    write_video(folder / "thin.mp4", [face_frame(0, (10, 40))] * 5)
    write_video(folder / "tiny.mp4", [face_frame(0, (2, 2))] * 5)
    (folder / "itself.mp4").symlink_to(folder / "itself.mp4")
    (folder / "nowhere.mp4").symlink_to(folder / "absent")
    damaged = bytearray(write_video(folder / "damaged.mp4", 25, options={"g": "5"}).read_bytes())
    damaged[len(damaged) // 4 : len(damaged) // 2] = bytes(len(damaged) // 2 - len(damaged) // 4)
    (folder / "damaged.mp4").write_bytes(damaged)
    names = ("cut off", "empty", "text", "sound only", "itself", "nowhere")
    pictures = dict.fromkeys(("nobody", "thin", "tiny"), "no face")
    return {**dict.fromkeys(names, "not a video"), "no sound": "no sound", **pictures, "damaged": "damaged"}
