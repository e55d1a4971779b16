"""Two processes with half the batch each do what one process does, batch statistics and continued runs included."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
import tyro
from torch import nn
from torch.distributed import run as torchrun

import train_landmark
import train_render
from tests.datasets.made_up import write_clip
from tests.training.toy import STEPS, toy_trainer
from training import distributed
from training.options import Options, with_preset
from training.run_folder import RunFolder, read_metrics

ROOT = Path(__file__).resolve().parents[2]
COMMON = (
    "--batch 4 --steps 4 --workers 0 --log-every 1 --validate-every 4 --num-references 2 --device cpu "
    "--precision fp32 --warmup-steps 0 --sampling.samples-per-epoch 8 --sampling.balance clip"
)
LANDMARK = (
    "--model.width 16 --model.layers 1 --model.heads 2 --model.feed-forward 16 --model.audio-width 2 "
    "--model.landmark-width 1 --model.dropout 0"
)
RENDER = (
    "--model.size 32 --model.shallow 4 --model.deep 8 --model.alignment-deep 8 --model.modulation 4 "
    "--model.style-hidden 4 --model.audio-width 2 --discriminator.width 4 --val-samples 2 --loss.layers 1 2 "
    "--loss.warmup-epochs 1 --loss.style 1000 --loss.adversarial 0.25 --loss.feature-matching 2.5 --vgg vgg.pth"
)


def write_vgg(path: Path) -> None:
    """Noise of VGG-19's shapes, up to relu2_1."""
    shapes = {0: (64, 3), 2: (64, 64), 5: (128, 64)}
    state = {f"features.{i}.weight": 0.1 * torch.randn(*shape, 3, 3) for i, shape in shapes.items()}
    torch.save(state | {f"features.{i}.bias": torch.zeros(shape[0]) for i, shape in shapes.items()}, path)


def start_processes(commands: list[list[str]], cwd: Path | None = None) -> list[subprocess.Popen[bytes]]:
    """Python programs that find each other as torchrun's do."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    size = str(len(commands))
    world = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": size, "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen([sys.executable, *command], env={**world, "RANK": str(rank)}, stderr=subprocess.PIPE, cwd=cwd)
        for rank, command in enumerate(commands)
    ]


def end(processes: list[subprocess.Popen[bytes]]) -> None:
    errors = [process.communicate(timeout=100)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), errors


@pytest.mark.parametrize("text", [train_landmark.__doc__, train_render.__doc__, (ROOT / "README.md").read_text()])
def test_torchrun_takes_the_documented_command(text: str) -> None:
    """Without -- it refuses --run, which might be short for a flag of its own."""
    command = re.search(r"torchrun (.*?) \.\.\.", text)
    assert command
    parsed = torchrun.parse_args([*command.group(1).split(), "--cache", "C", "--run", "R"])
    assert (ROOT / parsed.training_script).exists() and parsed.training_script_args == ["--cache", "C", "--run", "R"]


def test_on_gpus_batch_statistics_are_pytorchs() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.BatchNorm2d(4)), nn.BatchNorm1d(4))
    names, parameters = list(network.state_dict()), list(network.parameters())
    distributed.share_batch_norm(network, distributed.World(0, 2, torch.device("cuda:0")))
    assert [type(layer) for layer in network.modules() if "Norm" in type(layer).__name__] == [nn.SyncBatchNorm] * 2
    assert list(network.state_dict()) == names, "weight files stay the same"
    assert all(a is b for a, b in zip(network.parameters(), parameters, strict=True)), "the optimiser's own"


@pytest.mark.slow
def test_another_machine_needs_no_checkpoint(tmp_path: Path) -> None:
    toy_trainer(tmp_path / "here", steps=4).fit()
    (tmp_path / "here" / "lock").unlink()  # held until this process ends
    commands = [["-m", "tests.training.toy", str(tmp_path / name)] for name in ("here", "elsewhere")]
    end(start_processes(commands, cwd=ROOT))
    steps = [row["step"] for row in read_metrics(tmp_path / "here") if row["group"] == "train"]
    assert steps == list(range(1, STEPS + 1))
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.slow
@pytest.mark.parametrize("run", ["file/run", "taken"])
def test_only_the_process_that_fails_says_why(tmp_path: Path, run: str) -> None:
    for name in ("a/clip", "b/clip"):
        write_clip(tmp_path / "cache", name, size=32)
    (tmp_path / "file").write_text("")
    RunFolder(Options(cache=tmp_path, run=tmp_path / "taken")).lock()
    script = str(ROOT / "train_landmark.py")
    command = [script, "--cache", "cache", "--run", run, *COMMON.split(), *LANDMARK.split()]
    processes = start_processes([command, command], cwd=tmp_path)
    errors = [process.communicate(timeout=100)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [2, 2] and "Traceback" not in "".join(errors), errors
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["lock"]
    assert errors[0].startswith("error: --run") and "error: another process of this training has ended" in errors[1]


@pytest.mark.slow
@pytest.mark.parametrize(("script", "flags"), [(train_landmark, LANDMARK), (train_render, RENDER)])
def test_two_processes_are_one(tmp_path: Path, script: ModuleType, flags: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        write_clip(tmp_path / "cache", f"speaker{number}/clip", num_frames=30, size=32, seed=number)
    write_vgg(tmp_path / "vgg.pth")
    monkeypatch.chdir(tmp_path)
    arguments = ["--cache", "cache", *COMMON.split(), *flags.split(), "--run"]
    command = [str(ROOT / f"{script.__name__}.py"), *arguments, "two"]
    processes = start_processes([command, command])
    script.main(tyro.cli(with_preset(script.Config, script.PRESETS), args=[*arguments, "one"]))
    end(processes)
    one, two = (read_metrics(tmp_path / run) for run in ("one", "two"))
    assert len(one) == len(two) == 5
    for a, b in zip(one, two, strict=True):
        for name in a:
            if name.startswith(("L", "gradient", "discriminator", "selection")):
                assert b[name] == pytest.approx(a[name], rel=1e-3), (a["step"], name)
    assert len({row["L"] for row in one if row["group"] == "train"}) == 4
