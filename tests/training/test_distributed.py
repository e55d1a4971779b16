"""Two processes with half the batch each do what one process does, also in continued runs."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import filelock
import pytest
import torch
from torch import nn
from torch.distributed import run as torchrun

import train_landmark
import train_render
from tests.datasets.made_up import write_clip
from tests.training.toy import STEPS, toy_trainer
from training.run_folder import load_latest, read_metrics

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
    "--model.style-hidden 4 --model.audio-width 2 --discriminator-width 4 --val-samples 2 "
    "--alignment-steps 2 --loss.style 1000 --loss.adversarial 0.25 --loss.feature-matching 2.5 --vgg vgg.pth"
)
INITIAL_MOTION = "--initial-motion-steps 2 --alignment-steps 0"


def write_vgg(path: Path) -> None:
    """Noise of VGG-19's shapes, up to relu5_1."""
    channels = [3, 64, 64, 128, 128, 256, 256, 256, 256, 512, 512, 512, 512, 512]
    state = {}
    for layer, before, after in zip(
        (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28), channels, channels[1:], strict=False
    ):
        state[f"features.{layer}.weight"] = torch.randn(after, before, 3, 3) / (3 * before**0.5)
        state[f"features.{layer}.bias"] = torch.zeros(after)
    torch.save(state, path)


def start_processes(commands: list[list[str]], cwd: Path | None = None) -> list[subprocess.Popen[bytes]]:
    """Starts Python programs that find each other as torchrun's do."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    size = str(len(commands))
    world = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "WORLD_SIZE": size,
        "PYTHONPATH": str(ROOT),
    }
    return [
        subprocess.Popen(
            [sys.executable, *command],
            env={**world, "RANK": str(rank), "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            cwd=cwd,
        )
        for rank, command in enumerate(commands)
    ]


def end(processes: list[subprocess.Popen[bytes]]) -> None:
    errors = [process.communicate(timeout=400)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), errors


@pytest.mark.parametrize(
    "text", [train_landmark.__doc__, train_render.__doc__, (ROOT / "docs" / "training.md").read_text()]
)
def test_torchrun_takes_the_documented_command(text: str) -> None:
    """Without --, torchrun refuses --run, which it takes for an abbreviation of its own flags."""
    commands = re.findall(r"torchrun ((?:.*?\\\n)*.*?)(?: \.\.\.)?$", text, re.M)
    assert commands
    for command in commands:
        parsed = torchrun.parse_args([*command.replace("\\\n", "").split(), "--cache", "C", "--run", "R"])
        assert (ROOT / parsed.training_script).exists()
        assert parsed.training_script_args[-4:] == ["--cache", "C", "--run", "R"]


def test_on_gpus_batch_statistics_are_pytorchs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.BatchNorm2d(4)), nn.BatchNorm1d(4))
    names, parameters = list(network.state_dict()), list(network.parameters())
    engine = toy_trainer(tmp_path).engine
    engine.num_processes, engine.device = 2, torch.device("cuda:0")
    monkeypatch.setattr("training.engine.DistributedDataParallel", lambda module, **_: module)
    engine.parallel(network)
    assert [type(layer) for layer in network.modules() if "Norm" in type(layer).__name__] == [nn.SyncBatchNorm] * 2
    assert list(network.state_dict()) == names, "weight files stay the same"
    assert all(a is b for a, b in zip(network.parameters(), parameters, strict=True)), "the optimiser's own"


@pytest.mark.slow
def test_another_machine_needs_no_checkpoint(tmp_path: Path) -> None:
    toy_trainer(tmp_path / "here", steps=4).fit()
    commands = [["-m", "tests.training.toy", str(tmp_path / name)] for name in ("here", "elsewhere")]
    end(start_processes(commands, cwd=ROOT))
    steps = [row["step"] for row in read_metrics(tmp_path / "here") if row["group"] == "train"]
    assert steps == list(range(1, STEPS + 1))
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("run", "message"),
    [
        ("file/run", "error: file/run could not be written"),
        ("taken", "error: --run: another training uses taken"),
    ],
)
def test_only_the_process_that_fails_says_why(tmp_path: Path, run: str, message: str) -> None:
    for name in ("a/clip", "b/clip"):
        write_clip(tmp_path / "cache", name, size=32)
    (tmp_path / "file").write_text("")
    (tmp_path / "taken").mkdir()
    taken = filelock.FileLock(tmp_path / "taken" / "lock")
    taken.acquire()
    script = str(ROOT / "train_landmark.py")
    command = [script, "--cache", "cache", "--run", run, *COMMON.split(), *LANDMARK.split()]
    processes = start_processes([command, command], cwd=tmp_path)
    errors = [process.communicate(timeout=400)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [2, 2] and "Traceback" not in "".join(errors), errors
    assert not [path for path in (tmp_path / "taken").rglob("*") if path.is_file() and path.name != "lock"]
    assert errors[0].startswith(message) and "error: another process of this training has ended" in errors[1]


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"accumulate": 2, "batch": 8}, {"clip_norm": 0.5}])
def test_two_processes_train_as_one(tmp_path: Path, settings: dict[str, float]) -> None:
    flags = json.dumps({"dropout": 0.0, **settings})
    command = ["-m", "tests.training.toy", str(tmp_path / "two"), "", flags]
    end(start_processes([command, command], cwd=ROOT))
    toy_trainer(tmp_path / "one", **json.loads(flags)).fit()
    one, two = (load_latest(tmp_path / run / "checkpoints") for run in ("one", "two"))
    assert one and two and one["step"] == two["step"] == STEPS
    assert one["networks"].keys() == two["networks"].keys()
    for key in ("networks", "average"):
        torch.testing.assert_close(two[key], one[key], rtol=1e-4, atol=1e-6)
    losses = [[row["L"] for row in read_metrics(tmp_path / run) if "L" in row] for run in ("one", "two")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "flags"),
    [("train_landmark", LANDMARK), ("train_render", RENDER), ("train_render", f"{RENDER} {INITIAL_MOTION}")],
)
def test_weights_stay_the_same_on_both_processes(tmp_path: Path, script: str, flags: str) -> None:
    for number in range(4):
        write_clip(tmp_path / "cache", f"speaker{number}/clip", num_frames=30, size=32, seed=number)
    write_vgg(tmp_path / "vgg.pth")
    arguments = ["--cache", "cache", *COMMON.split(), *flags.split(), "--run", "run"]
    command = ["-m", "tests.training.two_processes", script, *arguments]
    end(start_processes([command, command], cwd=tmp_path))
    states = [torch.load(tmp_path / f"process_{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name
    saved = load_latest(tmp_path / "run" / "checkpoints")
    assert saved and saved["step"] == 4
    for key, value in saved["networks"].items():
        assert key not in states[0] or torch.equal(value, states[0][key]), key
    assert sum(key in states[0] for key in saved["networks"]) > 10
    rows = [row for row in read_metrics(tmp_path / "run") if row["group"] == "train"]
    assert len({row["L"] for row in rows}) == 4
