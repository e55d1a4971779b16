"""Speed of dubbing on this machine: python -m benchmarks.inference [--video V --audio A]

Frames a second by stage; cost against the length of the sound; and, in the same run, the renderer with its references
encoded once a video against the plain formula that encodes them for every frame.
"""

import runtime.threads  # isort: skip  # noqa: F401 (before PyTorch)

import statistics
import tempfile
import timeit
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.io import wavfile

from face.landmarks import NUM_FULL
from inference import SHORTEST_SOUND, Dubber
from media.audio import MEL_COLUMNS, N_MELS, SAMPLE_RATE
from media.video import read_audio
from networks import SHIPPED_WEIGHTS, DubConfig, Networks
from runtime import command_line
from runtime.command_line import UserError
from runtime.device import wait

ASSETS = Path(__file__).resolve().parents[1] / "assets"


@dataclass(frozen=True)
class Config:
    """Measures how fast this machine dubs."""

    video: Path = ASSETS / "portrait.png"
    audio: Path = ASSETS / "speech.flac"
    weights: Path = SHIPPED_WEIGHTS
    device: str = "auto"
    num_references: tuple[int, ...] = (1, 5, 25)
    batch_size: int = 4
    repeats: int = 5
    """Timed runs of the renderer; the median counts."""
    seconds: tuple[float, ...] = (2.0, 4.0)
    """Lengths of sound to dub."""


def median_ms(run: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Median wall time in milliseconds, after one run that does not count."""
    times = timeit.repeat(lambda: (run(), wait(device)), repeat=repeats + 1, number=1)
    return 1000 * statistics.median(times[1:])


def renderer_ms(networks: Networks, count: int, batch: int, repeats: int) -> tuple[float, float]:
    """Milliseconds a frame of the renderer on a random batch: as shipped, and references encoded for every frame."""
    renderer, device, c = networks.renderer, networks.device, networks.renderer.config
    face = torch.rand(batch, 3, c.size, c.size, device=device)
    sketches = torch.rand(batch, c.num_frames, 3, c.size, c.size, device=device)
    mel = torch.rand(batch, 1, N_MELS, MEL_COLUMNS, device=device)
    images = torch.rand(1, count, 3, c.size, c.size, device=device).expand(batch, -1, -1, -1, -1)
    points = torch.rand(1, NUM_FULL, 2, device=device).expand(batch, -1, -1)
    theirs = 0.01 * torch.randn(1, count, NUM_FULL, 2, device=device) + points[:, None]  # as faces of one clip
    with torch.inference_mode():
        features = renderer.encode_references(images[:1], images[:1], theirs[:1])
        with torch.autocast(device.type, torch.bfloat16, enabled=networks.half):
            shipped = median_ms(lambda: renderer.render(face, sketches, features, mel, points), device, repeats)
            plain = median_ms(lambda: renderer(face, sketches, images, images, mel, points, theirs), device, repeats)
    return shipped / batch, plain / batch


def main(config: Config) -> None:
    command_line.at_least(1, repeats=config.repeats, num_references=min(config.num_references, default=1))
    if min(config.seconds, default=SHORTEST_SOUND) < SHORTEST_SOUND:
        raise UserError(f"--seconds {min(config.seconds)}: at least {SHORTEST_SOUND} s are needed")
    dubber = Dubber.from_weights(config.weights, DubConfig(device=config.device, batch_size=config.batch_size))
    networks = dubber.networks
    print(f"{networks.device}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print("\nrenderer, ms a frame        shipped   references encoded per frame   ratio")
    for count in config.num_references:
        cached, plain = renderer_ms(networks, count, config.batch_size, config.repeats)
        print(f"{count:3d} references {cached:20.1f} {plain:30.1f} {plain / cached:7.2f}")
    wav = read_audio(config.audio)
    print("\nwhole job    frames   s in all   frames/s   by stage (ms a frame)")
    with tempfile.TemporaryDirectory() as folder:
        for seconds in config.seconds:
            sound = Path(folder) / "sound.wav"
            wavfile.write(sound, SAMPLE_RATE, np.resize(wav, int(seconds * SAMPLE_RATE)))
            summary = dubber.dub(config.video, sound, Path(folder) / "out.mp4")
            stages = ", ".join(f"{k} {1000 * v / summary.frames:.1f}" for k, v in summary.stage_seconds.items())
            rate = summary.frames / summary.seconds
            print(f"{seconds:5.1f} s {summary.frames:11d} {summary.seconds:10.1f} {rate:10.1f}   {stages}")


if __name__ == "__main__":
    command_line.run(main, Config)
