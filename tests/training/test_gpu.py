"""What a GPU would be asked to do, tested without one: every tensor claims to be on the GPU, and none holds a number.

PyTorch's fake tensors know device and type, and refuse one on the CPU among others on the GPU, as a GPU would.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import tyro
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim import Adam

import train_landmark
import train_render
from networks import SHIPPED_WEIGHTS, DubConfig, Networks
from tests.datasets.made_up import write_clip
from tests.training.test_distributed import COMMON, LANDMARK, RENDER, write_vgg
from training.engine import Engine
from training.loop import Trainer

GPU = torch.device("cuda:0")
pytestmark = pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="this PyTorch knows no CUDA")


@contextmanager
def on_gpu(*modules: nn.Module) -> Iterator[None]:
    """Makes new tensors fake and puts modules on the GPU; no module may be used afterwards."""
    with FakeTensorMode():
        for module in nn.ModuleList(modules).modules():
            for name, value in module._parameters.items():
                if value is not None:
                    moved = torch.empty(value.shape, dtype=value.dtype, device=GPU)
                    module._parameters[name] = nn.Parameter(moved, requires_grad=False)
            for name, value in module._buffers.items():
                if value is not None:
                    module._buffers[name] = torch.empty(value.shape, dtype=value.dtype, device=GPU)
        yield


def test_a_tensor_left_on_the_cpu_is_found() -> None:
    with on_gpu(layer := nn.Linear(2, 2)):
        assert layer(torch.ones(1, 2, device=GPU)).device == GPU
        with pytest.raises(RuntimeError, match="same device"):
            layer(torch.ones(1, 2))


@pytest.mark.slow
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("preset", ["paper", "lite"])
@pytest.mark.parametrize(("script", "flags"), [(train_landmark, LANDMARK), (train_render, RENDER)])
def test_a_training_step(
    tmp_path: Path, script: ModuleType, flags: str, preset: str, half: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for number in range(2):
        write_clip(tmp_path / "cache", f"speaker{number}/clip", num_frames=30, size=32, seed=number)
    write_vgg(tmp_path / "vgg.pth")
    monkeypatch.chdir(tmp_path)
    arguments = ["--cache", "cache", "--run", "run", "--preset", preset, *COMMON.split(), *flags.split()]
    chosen = script.PRESETS[preset]
    config = tyro.cli(type(chosen), default=chosen, args=arguments)
    for trainer in list(script.trainers(config, Engine(config))):
        check_training_step(trainer, half, monkeypatch)


def check_training_step(trainer: Trainer, half: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    [part] = next(trainer.batches())
    monkeypatch.setattr(Tensor, "backward", lambda _: None)
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)
    vgg: list[Any] = [trainer.loss.vgg] if isinstance(trainer, train_render.RenderTrainer) else []
    with on_gpu(*trainer.networks.values(), trainer.average, *vgg), monkeypatch.context() as patch:
        patch.setattr(trainer.engine, "device", GPU)
        patch.setattr(trainer.engine, "half", half)
        with trainer.engine.autocast():
            square = torch.ones(2, 2, device=GPU)
            assert (square @ square).dtype == (torch.bfloat16 if half else torch.float32)
        batch: Any = {
            k: torch.empty(v.shape, dtype=v.dtype, device=GPU) if isinstance(v, Tensor) else v for k, v in part.items()
        }
        for trainer.step in (0, 9):  # warming up and after it
            with torch.no_grad():  # a graph would ask the driver
                losses = trainer.train_batch(batch)
            assert "L" in losses and {(loss.device, loss.dtype) for loss in losses.values()} == {(GPU, torch.float32)}
        for name, network in trainer.networks.items():
            for parameter in network.parameters():
                parameter.requires_grad_().grad = torch.empty_like(parameter)
            optimiser = Adam([{"name": name, "params": network.parameters()}], fused=True)
            assert trainer.engine.update(optimiser, 0)[f"{name}_gradient_norm"].device == GPU


def test_dubbing(monkeypatch: pytest.MonkeyPatch) -> None:
    def numpy(tensor: Tensor) -> np.ndarray:
        assert tensor.device.type == "cpu"
        return np.zeros(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))

    networks = Networks.from_weights(SHIPPED_WEIGHTS, DubConfig(device="cpu", half=False))
    monkeypatch.setattr(Tensor, "numpy", numpy)
    random = np.random.default_rng(0)
    points, mel = random.random((40, 131, 2), np.float32), random.random((80, 200), np.float32)
    faces, larger = (random.integers(0, 255, (30, size, size, 3), np.uint8) for size in (128, 256))
    with on_gpu(networks.landmark_generator, networks.renderer):
        networks.device = GPU
        assert networks.predict_landmarks(points, points[:15], mel).shape == points.shape
        references = networks.encode_references(faces, points[:30], np.tile([0, 0, 200, 200], (30, 1)), larger)
        features: Any = references.features
        assert features.landmarks.device == GPU
        sketches, heard = random.random((4, 5, 128, 128, 3), np.float32), random.random((4, 1, 80, 16), np.float32)
        drawn, warped = networks.draw_faces(faces[:4], points[:4], sketches, references, heard)
        assert drawn.shape == (4, 256, 256, 3) and warped.shape == (4, 128, 128, 3)
