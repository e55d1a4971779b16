"""The benchmark of training: what it measures, and that the whole of it runs."""

from pathlib import Path

import pytest

from benchmarks import training
from benchmarks.training import TrainingBenchmarkConfig, main, measure
from runtime.command_line import UserError
from tests.datasets.made_up import write_clip
from tests.training.toy import toy_trainer


def test_phases_are_shares_of_a_step(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path)
    row = measure(trainer, 4)
    assert row["forward"] + row["backward"] + row["optimiser"] == pytest.approx(1)
    assert min(row.values()) > 0
    assert trainer.step == training.WARM_UP + 4 + 2


@pytest.mark.slow
def test_the_whole_benchmark_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(training.VARIANTS, "compiled")  # takes a minute
    for number in range(4):
        write_clip(tmp_path, f"s{number}/a", 40, seed=number)
    config = TrainingBenchmarkConfig(tmp_path, stages=("landmark",), steps=1, batch=4, workers=0)
    main(config)
    text = capsys.readouterr().out
    assert "landmark, lite, batch 4" in text
    for words in ("samples/s", "as shipped", "relative rate"):
        assert words in text


def test_no_steps_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="steps"):
        main(TrainingBenchmarkConfig(tmp_path, steps=0))
