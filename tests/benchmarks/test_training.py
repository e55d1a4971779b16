"""The benchmark of training compares dry runs of the script."""

from pathlib import Path

import pytest

from benchmarks import training
from benchmarks.training import TrainingBenchmarkConfig, main
from tests.datasets.made_up import write_clip


@pytest.mark.slow
def test_the_preset_is_compared_with_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(4):
        write_clip(tmp_path, f"speaker{number}/clip", num_frames=30, size=32, seed=number)
    monkeypatch.setattr(training, "SCRIPTS", ("train_landmark.py",))  # the other needs VGG-19
    main(TrainingBenchmarkConfig(tmp_path))
    lines = [line.split("  ") for line in capsys.readouterr().out.splitlines() if line.startswith("train_")]
    assert [line[0] for line in lines] == ["train_landmark.py", "train_landmark.py --precision fp32"]
    assert all(float(number) > 0 for line in lines for number in line[1:] if number)
