"""The benchmark's clock: phases exclude what is inside them, and nothing is counted twice."""

import time
from pathlib import Path

import pytest
import torch

from benchmarks import training
from benchmarks.training import Config, Phases, main, matmul_peak, run
from runtime.command_line import UserError
from tests.training.toy import toy_trainer


def test_phases_are_parts_of_the_whole(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path)
    phases = Phases(trainer)
    total = run(trainer, 4, phases)
    assert set(phases.seconds) == {"data", "forward", "backward", "optimiser", "other"}
    assert 0 < sum(phases.seconds.values()) <= total
    assert trainer.step == 3 + 4


def test_a_phase_inside_another_counts_for_itself(tmp_path: Path) -> None:
    phases = Phases(toy_trainer(tmp_path))
    began = time.perf_counter()
    with phases.phase("outer"):
        time.sleep(0.05)
        with phases.phase("inner"):
            time.sleep(0.2)
        time.sleep(0.05)
    passed = time.perf_counter() - began
    assert phases.seconds["inner"] >= 0.2
    assert phases.seconds["outer"] >= 0.1
    assert phases.seconds["inner"] + phases.seconds["outer"] == pytest.approx(passed, abs=0.01)


def test_the_peak_is_of_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    class Timer(training.Timer):
        def __init__(self, *given: object, num_threads: int = 1, **more: object) -> None:
            assert num_threads == 7
            raise ZeroDivisionError

    monkeypatch.setattr(training, "Timer", Timer)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    with pytest.raises(ZeroDivisionError):
        matmul_peak(torch.device("cpu"), torch.float32)


def test_no_steps_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="steps: at least 1 is needed, not 0"):
        main(Config(tmp_path, steps=0))
