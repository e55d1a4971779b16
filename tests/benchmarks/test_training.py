"""The benchmark of training measures whole steps."""

from pathlib import Path

import pytest

from benchmarks import training
from benchmarks.training import TrainingBenchmarkConfig, main, measure
from runtime.command_line import UserError
from tests.training.toy import toy_trainer


def test_phases_are_shares_of_a_step(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path)
    row = measure(trainer, 4)
    assert 0 < row["backward"] < 1
    assert 0 < row["optimiser"] < 1
    assert row["backward"] + row["optimiser"] < 1
    assert min(row.values()) > 0
    assert trainer.step == training.WARM_UP + 4 + 2


def test_no_steps_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="steps"):
        main(TrainingBenchmarkConfig(tmp_path, steps=0))
