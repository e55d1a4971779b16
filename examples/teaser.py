"""Makes the moving picture at the top of the README: source, landmarks, result.

python -m examples.teaser     # writes assets/dub.webp, from the demo's portrait and speech
"""

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from face.tracking import track_faces
from media.video import Video
from runtime import command_line

ROOT = Path(__file__).resolve().parents[1]
SIDE = 288  # pixels of each of the three pictures
GAP = 6
LABELS = ("source", "landmarks from the sound", "result")
FONT = ImageFont.load_default(17)
CONTEXT = 0.35  # of the face's height, shown on every side of its box


@dataclass(frozen=True)
class TeaserConfig:
    """Dubs a video or picture and shows source, landmarks and result side by side as an animated WebP."""

    video: Path = ROOT / "assets" / "portrait.png"
    audio: Path = ROOT / "assets" / "speech.flac"
    output: Path = ROOT / "assets" / "dub.webp"
    """The picture to write (.webp)."""
    start: float = 0.0
    """Second at which it starts."""
    seconds: float = 5.0
    """Length."""
    quality: int = 72
    """Of the WebP, 0 to 100."""


def main(config: TeaserConfig) -> None:
    command_line.check_output(config.output, "--output", (".webp",), inputs=(config.video, config.audio))
    with tempfile.TemporaryDirectory() as folder:
        dubbed = Path(folder) / "panel.mp4"
        script = [sys.executable, str(ROOT / "inference.py"), "--panel", "--lossless"]
        files = ["--video", str(config.video), "--audio", str(config.audio), "--output", str(dubbed)]
        subprocess.run(script + files, check=True)
        frames = list(Video(dubbed))
    first = int(config.start * 25)
    frames = frames[first : first + int(config.seconds * 25)]
    cell = frames[0].shape[0] // 4  # side of a cell of the panel, which is a column at the right
    results = [frame[:, :-cell] for frame in frames]
    sketches = [frame[cell : 2 * cell, -cell:] for frame in frames]
    sources = list(Video(config.video))
    sources = [sources[(first + number) % len(sources)] for number in range(len(results))]
    box = view_around(track_faces(results[:1], "largest").boxes[0], results[0].shape)
    pictures = [
        side_by_side([crop(source, box), resize(sketch), crop(result, box)])
        for source, sketch, result in zip(sources, sketches, results, strict=True)
    ]
    pictures[0].save(
        config.output, save_all=True, append_images=pictures[1:], duration=40, loop=0, quality=config.quality, method=6
    )
    print(f"{config.output}: {len(pictures)} frames, {config.output.stat().st_size / 1e6:.2f} MB")


def view_around(box: np.ndarray, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """A square around a face box (4,), within a picture of `shape` (H, W, 3): x0, y0, x1, y1."""
    side = min(int((box[3] - box[1]) * (1 + 2 * CONTEXT)), shape[0], shape[1])
    x0 = int(np.clip((box[0] + box[2] - side) // 2, 0, shape[1] - side))
    y0 = int(np.clip((box[1] + box[3] - side) // 2, 0, shape[0] - side))
    return x0, y0, x0 + side, y0 + side


def crop(frame: np.ndarray, box: tuple[int, int, int, int]) -> Image.Image:
    return Image.fromarray(frame).crop(box).resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def resize(sketch: np.ndarray) -> Image.Image:
    return Image.fromarray(sketch).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def side_by_side(images: list[Image.Image]) -> Image.Image:
    row = Image.new("RGB", (len(images) * (SIDE + GAP) - GAP, SIDE), "white")
    draw = ImageDraw.Draw(row)
    for number, image in enumerate(images):
        left = number * (SIDE + GAP)
        row.paste(image, (left, 0))
        place = (left + SIDE // 2, SIDE - 8)
        draw.text(place, LABELS[number], "white", FONT, anchor="ms", stroke_width=2, stroke_fill="black")
    return row


if __name__ == "__main__":
    command_line.run(main, TeaserConfig, prog="python -m examples.teaser")
