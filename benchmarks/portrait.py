"""Test videos of any size and length, in which the shipped portrait sways and speaks."""

from pathlib import Path

import cv2
import numpy as np

from media.audio import FPS, SAMPLE_RATE
from media.video import read_audio
from media.writer import VideoWriter

ASSETS = Path(__file__).resolve().parents[1] / "assets"


def write_portrait(path: Path, length: float, size: tuple[int, int]) -> None:
    """Writes a video of `length` seconds and `size` (width, height), with sound."""
    side = min(size)
    portrait = cv2.imread(str(ASSETS / "portrait.png"), cv2.IMREAD_COLOR_RGB)
    portrait = cv2.resize(portrait, (side, side), interpolation=cv2.INTER_AREA)
    top = (size[1] - side) // 2
    left = (size[0] - side) // 2
    portrait = cv2.copyMakeBorder(portrait, top, top, left, left, cv2.BORDER_REFLECT)
    speech = ASSETS / "speech.flac"
    seconds = len(read_audio(speech)) / SAMPLE_RATE
    sounds = [(speech, start) for start in np.arange(0, length, seconds)]
    with VideoWriter(path, FPS, size, sounds, crf=23) as writer:
        for frame in range(round(length * FPS)):
            shift = side / 40 * np.array([np.sin(frame / 9), np.cos(frame / 7)])
            writer.write(np.roll(portrait, shift.astype(int), axis=(0, 1)))
