"""python -m benchmarks.inference: measures speed and memory of dubbing on this machine, as tables and a picture.

Start-up time and memory are measured by running the command in processes of its own. Whole jobs run in this process
after a warm-up. The paper's renderer is compared with its formula as the released code computes it, in float32: for
every frame, each reference is encoded, and its modulation is computed from the target's sketches. The relative rate is
that formula's number of operations divided by the time taken and by the rate of a matrix product in the same run.
"""

import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.machine import Row, busy_core, describe, matmul_rate, print_table, run, seconds
from benchmarks.portrait import write_portrait
from inference import Dubber
from media.audio import MEL_COLUMNS, N_MELS
from models.configs import RendererConfig
from models.motion_field import Motion, align
from models.renderer import Renderer
from networks import DubConfig
from runtime import command_line
from runtime.device import pick_device

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
    device = pick_device(config.device)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        commands = [measure_command(config.device, folder, length) for length in LENGTHS]
        print_table("The command, 224 x 224", commands)
        # Before `Dubber` tunes the memory allocator, but after the commands, whose peak includes this process's memory.
        released = {count: measure_released(count, device) for count in NUM_REFERENCES}
        dubber = Dubber.from_weights(config=DubConfig(device=config.device))
        measure_job(dubber, folder, SMALL)  # warm-up
        jobs = [measure_job(dubber, folder, size) for size in (PORTRAIT, SQUARE, SMALL)]
        with busy_core():
            jobs.append(measure_job(dubber, folder, SQUARE) | {"job": "512 x 512, one core busy"})
        print_table(f"Whole jobs, warm (stages in ms a frame; they run side by side): {describe(device)}", jobs)
    types = (torch.float32, torch.bfloat16)
    renderer = [measure_renderer(count, device, dtype, *released[count]) for dtype in types for count in NUM_REFERENCES]
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


def paper_renderer(count: int, device: torch.device) -> tuple[Renderer, Tensor, Tensor, Tensor, Tensor]:
    """Returns the paper's renderer, a picture, its sketches, `count` references and a mel window, all random."""
    config = RendererConfig()
    picture = torch.rand(1, 3, config.size, config.size, device=device)
    sketches = picture[:, None].repeat(1, config.num_frames, 1, 1, 1)
    references = picture[:, None].repeat(1, count, 1, 1, 1)
    mel = torch.rand(1, 1, N_MELS, MEL_COLUMNS, device=device)
    return Renderer(config).to(device).eval(), picture, sketches, references, mel


@torch.inference_mode()
def measure_released(count: int, device: torch.device) -> tuple[int, float]:
    """Returns the operations and seconds of one frame in the released code's order."""
    inputs = paper_renderer(count, device)
    with FlopCounterMode(display=False) as counter:
        as_released(*inputs)
    return counter.get_total_flops(), seconds(lambda: as_released(*inputs))


@torch.inference_mode()
def measure_renderer(count: int, device: torch.device, dtype: torch.dtype, operations: int, released: float) -> Row:
    """Draws one frame with the paper's renderer; compares it with the results of `measure_released`."""
    renderer, picture, sketches, references, mel = paper_renderer(count, device)
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        features = renderer.encode_references(references, references)
        ours = seconds(lambda: renderer.render(picture, sketches, features, mel).face)
    return {
        "renderer": f"N = {count}, {dtype}",
        "GFLOP": operations / 1e9,
        "as released, ms": 1000 * released,
        "ms": 1000 * ours,
        "speed-up": released / ours,
        "relative rate": operations / ours / matmul_rate(device, dtype),
    }


def as_released(renderer: Renderer, picture: Tensor, sketches: Tensor, references: Tensor, mel: Tensor) -> Tensor:
    """Draws the face (1, 3, H, W) in the released code's order: nothing is shared by references or frames."""
    maps = sketches.flatten(1, 2)  # (1, T*S, H, W)
    with torch.enable_grad():  # switches off composed convolutions
        features = renderer.encode_references(references, references)
        each = torch.arange(references.shape[1], device=picture.device).view(-1, 1, 1)
        motions = [renderer.predict_motion(features.choose(one), maps, picture, None) for one in each]
        flows, weights = zip(*motions, strict=True)
        aligned = align(features, Motion(torch.cat(flows, 1), torch.cat(weights, 1)), renderer.sampling)
        return renderer.translate(picture, maps, aligned, mel)


if __name__ == "__main__":
    command_line.run(main, InferenceBenchmarkConfig, prog="python -m benchmarks.inference")
