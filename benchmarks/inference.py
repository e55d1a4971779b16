"""python -m benchmarks.inference: measures speed and memory of dubbing on this machine, as tables and a picture.

Start-up time and memory are measured by running the command in processes of its own. Whole jobs run in this process
after a warm-up. The paper's renderer is compared with the plain formula, which encodes the references for every frame.
Its relative rate is the formula's operations per second, divided by those of a matrix product in the same run.
"""

import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.machine import Row, busy_core, describe, matmul_rate, print_table, run, seconds
from benchmarks.portrait import write_portrait
from inference import Dubber
from media.audio import MEL_COLUMNS, N_MELS
from models.configs import RendererConfig
from models.renderer import Renderer
from networks import DubConfig
from runtime import command_line

SMALL = (224, 224)  # width, height
SQUARE = (512, 512)
PORTRAIT = (1080, 1920)
LENGTHS = (2.0, 8.0)  # seconds of video
NUM_REFERENCES = (1, 5, 25)  # of the paper's renderer
PICTURE = "benchmark.png"


@dataclass(frozen=True)
class InferenceBenchmarkConfig:
    """Measures how fast this machine dubs, in about two minutes; also draws benchmark.png."""

    device: str = "auto"
    """cpu, cuda, cuda:1, mps, or auto."""


def main(config: InferenceBenchmarkConfig) -> None:
    """Prints each table when it is ready, then draws the picture."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        commands = [measure_command(config.device, folder, length) for length in LENGTHS]
        print_table("The command, 224 x 224", commands)
        dubber = Dubber.from_weights(config=DubConfig(device=config.device))
        device = dubber.networks.device
        measure_job(dubber, folder, SMALL)  # warm-up
        jobs = [measure_job(dubber, folder, size) for size in (PORTRAIT, SQUARE, SMALL)]
        with busy_core():
            jobs.append(measure_job(dubber, folder, SQUARE) | {"job": "512 x 512, one core busy"})
        print_table(f"Whole jobs, warm (stages in ms a frame; they run side by side): {describe(device)}", jobs)
    types = (torch.float32, torch.bfloat16)
    renderer = [measure_renderer(count, device, dtype) for dtype in types for count in NUM_REFERENCES]
    print_table("The paper's renderer, one frame", renderer)
    figure = Figure(figsize=(8, 8), layout="constrained")
    for axes, (rows, column) in zip(figure.subplots(2), ((jobs, "frames/s"), (renderer, "relative rate")), strict=True):
        names = [next(iter(row.values())) for row in rows]  # the first column
        axes.bar_label(axes.barh(names, [row[column] for row in rows]), fmt="%.4g")
        axes.set_title(column)
    figure.savefig(PICTURE)


def measure_command(device: str, folder: Path, length: float) -> Row:
    """Runs the command on a small video of `length` seconds."""
    video = folder / f"{length}.mp4"
    write_portrait(video, length, SMALL)
    flags = ("--output", folder / "out.mp4", "--device", device)
    output, wall, peak_memory = run("inference.py", "--video", video, "--audio", video, *flags)
    [job] = re.findall(r"([\d.]+) s, [\d.]+ frames", output)
    return {
        "video": f"{length:g} s",
        "start-up, s": wall - float(job),
        "peak memory, MiB": peak_memory,
    }


def measure_job(dubber: Dubber, folder: Path, size: tuple[int, int]) -> Row:
    """Dubs a short video in this process."""
    video = folder / "video.mp4"
    write_portrait(video, LENGTHS[0], size)
    start = time.process_time()
    summary = dubber.dub(video, video, folder / "out.mp4")
    busy_seconds = time.process_time() - start
    return {
        "job": f"{size[0]} x {size[1]}",
        "frames/s": summary.frames / summary.seconds,
        "busy cores": busy_seconds / summary.seconds,
        **{stage: 1000 * wall / summary.frames for stage, wall in summary.stage_seconds.items()},
    }


@torch.inference_mode()
def measure_renderer(count: int, device: torch.device, dtype: torch.dtype) -> Row:
    """Draws one frame with the paper's renderer and `count` references."""
    config = RendererConfig()
    renderer = Renderer(config).to(device).eval()
    picture = torch.rand(1, 3, config.size, config.size, device=device)
    sketches = picture[:, None].repeat(1, config.num_frames, 1, 1, 1)
    references = picture[:, None].repeat(1, count, 1, 1, 1)
    mel = torch.rand(1, 1, N_MELS, MEL_COLUMNS, device=device)
    inputs = (picture, sketches, references, references, mel)
    with torch.enable_grad(), FlopCounterMode(display=False) as counter:  # gradients switch off composed convolutions
        renderer(*inputs)
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        features = renderer.encode_references(references, references)
        shipped = seconds(lambda: renderer.render(picture, sketches, features, mel))
        plain = seconds(lambda: renderer(*inputs))
    operations = counter.get_total_flops()
    peak = matmul_rate(device, dtype)
    return {
        "renderer": f"N = {count}, {dtype}",
        "GFLOP": operations / 1e9,
        "ms": 1000 * shipped,
        "plain formula, ms": 1000 * plain,
        "relative rate": operations / shipped / peak,
    }


if __name__ == "__main__":
    command_line.run(main, InferenceBenchmarkConfig, prog="python -m benchmarks.inference")
