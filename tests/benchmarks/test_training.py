"""The benchmark of training measures whole steps of both stages."""

from dataclasses import replace
from pathlib import Path

import pytest

import train_landmark
import train_render
from benchmarks import training
from benchmarks.training import TrainingBenchmarkConfig, main, measure
from losses.lite import LiteRenderLossConfig
from models.lite.landmark_generator import LiteLandmarkGeneratorConfig
from models.lite.renderer import LiteRendererConfig
from tests.datasets.made_up import write_clip
from tests.training.toy import toy_trainer


def test_whole_steps_are_timed(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path)
    row = measure(trainer)
    assert row["samples/s"] > 0
    assert 0 < row["waiting for data"] < 1
    assert trainer.step == training.WARM_UP + training.STEPS


@pytest.mark.slow
def test_the_whole_benchmark_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(4):
        write_clip(tmp_path / "cache", f"speaker{number}/clip", num_frames=30, size=32, seed=number)
    landmark = LiteLandmarkGeneratorConfig(num_frames=5, width=16, layers=1, feed_forward=16, audio_width=2)
    render = LiteRendererConfig(size=32, shallow=4, deep=8, alignment_deep=8, modulation=4, audio_width=2)
    pixels = LiteRenderLossConfig(warp=0, perceptual=0, style=0)
    presets = train_landmark.PRESETS, train_render.PRESETS
    changes = {"model": landmark}, {"model": render, "loss": pixels, "num_references": 2}
    for stage, settings in zip(presets, changes, strict=True):
        small = replace(stage["lite"], batch=2, workers=0, device="cpu", **settings)
        monkeypatch.setitem(stage, "lite", small)
    main(TrainingBenchmarkConfig(tmp_path / "cache"))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines if line.startswith(("landmark_generator", "renderer"))] == [
        ["landmark_generator", "auto"], ["landmark_generator", "fp32"], ["renderer", "auto"], ["renderer", "fp32"],
    ]  # fmt: skip
