"""python -m benchmarks.inference: speed and memory of dubbing on this machine, as tables and a picture.

Start-up and memory are those of the command, in processes of their own; whole jobs run in this process, once it is
warm. The paper's renderer is compared with the plain formula, which encodes the references for every frame; its speed
is given as the formula's operations a second, relative to those of a matrix product in the same run.
"""

import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import torch
from tabulate import tabulate
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.machine import busy_core, describe, matmul_rate, run, seconds
from benchmarks.portrait import write_portrait
from inference import SHORTEST_SOUND, Dubber
from media.audio import MEL_COLUMNS, N_MELS
from models.configs import RendererConfig
from models.renderer import Renderer
from networks import DubConfig
from runtime import command_line
from runtime.device import memory_gib

matplotlib.use("Agg")  # draws to files, also on machines without a screen

import matplotlib.pyplot as plt

SIZES = ((1080, 1920), (512, 512), (224, 224))  # width, height
NUM_REFERENCES = (1, 5, 25)  # of the paper's renderer
Row = dict[str, Any]  # a line of a table, by column


@dataclass(frozen=True)
class InferenceBenchmarkConfig:
    """Measures how fast this machine dubs, in about two minutes."""

    output: Path = Path("benchmark.png")
    """The picture to write."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps, or auto."""
    seconds: float = 2.0
    """Length of the videos; memory is also measured with four times this length."""


def main(config: InferenceBenchmarkConfig) -> None:
    """Prints the tables as they come, and draws the picture."""
    command_line.check_output(config.output, suffixes=(".png",))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        commands = [measure_command(config, folder, length) for length in (config.seconds, 4 * config.seconds)]
        print_table("The command, 224 x 224", commands)
        dubber = Dubber.from_weights(config=DubConfig(device=config.device))
        device = dubber.networks.device
        print(describe(device))
        measure_job(dubber, folder, SIZES[-1], SHORTEST_SOUND)  # warms up
        jobs = [measure_job(dubber, folder, size, config.seconds) for size in SIZES]
        with busy_core():
            job = measure_job(dubber, folder, SIZES[1], config.seconds)
        jobs.append(job | {"job": "512 x 512, one core busy"})
        print_table("Whole jobs, warm (stages in ms a frame; they run side by side)", jobs)
    renderer = []
    for dtype in (torch.float32, torch.bfloat16):
        rate = matmul_rate(device, dtype)
        print(f"matrix product in {dtype}: {rate / 1e9:.0f} GFLOP/s")
        renderer += [measure_renderer(count, device, dtype, rate) for count in NUM_REFERENCES]
    print_table("The paper's renderer, one frame", renderer)
    figure, axes = plt.subplots(2, 2, figsize=(12, 7), layout="constrained")
    figure.suptitle(describe(device))
    draw_bars(axes[0, 0], jobs, "frames/s")
    draw_bars(axes[0, 1], jobs, "busy cores")
    draw_bars(axes[1, 0], renderer, "relative rate")
    draw_bars(axes[1, 1], commands, "peak memory, MiB")
    figure.savefig(config.output)
    print(f"picture: {config.output}")


def measure_command(config: InferenceBenchmarkConfig, folder: Path, length: float) -> Row:
    """Runs the command on a small video of `length` seconds."""
    video = folder / f"{length}.mp4"
    write_portrait(video, length, SIZES[-1])
    flags = ("--output", folder / "out.mp4", "--device", config.device)
    usage = run("inference.py", "--video", video, "--audio", video, *flags)
    [job] = re.findall(r"([\d.]+) s, [\d.]+ frames a second", usage.output)
    return {
        "video": f"{length:g} s",
        "start-up, s": usage.seconds - float(job),
        "in all, s": usage.seconds,
        "peak memory, MiB": usage.peak_memory,
    }


def measure_job(dubber: Dubber, folder: Path, size: tuple[int, int], length: float) -> Row:
    """Dubs a video of `length` seconds in this process."""
    video = folder / "video.mp4"
    write_portrait(video, length, size)
    start = time.process_time()
    summary = dubber.dub(video, video, folder / "out.mp4")
    busy_cores = (time.process_time() - start) / summary.seconds
    row: Row = {
        "job": f"{size[0]} x {size[1]}",
        "frames/s": summary.frames / summary.seconds,
        "busy cores": busy_cores,
        "memory, GiB": memory_gib(dubber.networks.device),
    }
    for stage, wall in summary.stage_seconds.items():
        row[stage] = 1000 * wall / summary.frames
    return row


@torch.inference_mode()
def measure_renderer(count: int, device: torch.device, dtype: torch.dtype, rate: float) -> Row:
    """Draws one frame with the paper's renderer and `count` references; `rate` is that of a matrix product."""
    config = RendererConfig()
    renderer = Renderer(config).to(device).eval()
    picture = torch.rand(1, 3, config.size, config.size, device=device)
    sketches = picture.expand(config.num_frames, -1, -1, -1)[None]
    references = torch.rand(1, count, 3, config.size, config.size, device=device)
    mel = torch.rand(1, 1, N_MELS, MEL_COLUMNS, device=device)
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        features = renderer.encode_references(references, references)
        shipped = seconds(lambda: renderer.render(picture, sketches, features, mel))
        plain = seconds(lambda: renderer(picture, sketches, references, references, mel))
        with FlopCounterMode(display=False) as counter:
            renderer(picture, sketches, references, references, mel)
    operations = counter.get_total_flops()
    return {
        "renderer": f"N = {count}, {dtype}",
        "GFLOP": operations / 1e9,
        "ms": 1000 * shipped,
        "plain formula, ms": 1000 * plain,
        "relative rate": operations / shipped / rate,
        "plain formula's": operations / plain / rate,
    }


def print_table(title: str, rows: list[Row]) -> None:
    print(f"\n{title}\n{tabulate(rows, headers='keys', floatfmt='.4g')}", flush=True)


def draw_bars(axes: Any, rows: list[Row], column: str) -> None:
    """Draws one column of a table; its first column names the bars."""
    names = [next(iter(row.values())) for row in rows]
    bars = axes.barh(names, [row[column] for row in rows])
    axes.bar_label(bars, fmt="%.4g", padding=3)
    axes.invert_yaxis()
    axes.set(title=column, xmargin=0.2)


if __name__ == "__main__":
    command_line.run(main, InferenceBenchmarkConfig, prog="python -m benchmarks.inference")
