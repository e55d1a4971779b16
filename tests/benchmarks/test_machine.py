"""The measurements themselves: threads, peak memory, busy cores."""

import time

import pytest
import torch

from benchmarks import machine


def test_rates_are_of_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    class Timer(machine.Timer):
        def __init__(self, *arguments: object, num_threads: int = 1, **options: object) -> None:
            assert num_threads == 7
            raise ZeroDivisionError

    monkeypatch.setattr(machine, "Timer", Timer)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    with pytest.raises(ZeroDivisionError):
        machine.matmul_rate(torch.device("cpu"), torch.float32)


def test_usage_of_a_command() -> None:
    output, seconds, _ = machine.run("-c", "import time; print('done'); time.sleep(1)")
    assert output == "done\n"
    assert 1 <= seconds < 10
    *_, peak_memory = machine.run("-c", f"b'x' * {4 * 2**30}")
    assert 4096 < peak_memory < 4300


def test_a_core_is_busy_only_inside_the_block() -> None:
    def others() -> float:
        """Returns the CPU seconds of finished child processes."""
        import os

        return os.times().children_user

    before = others()
    with machine.busy_core():
        time.sleep(2)
    assert others() - before > 0.3


def test_description_names_threads_and_version() -> None:
    text = machine.describe(torch.device("cpu"))
    assert f"{torch.get_num_threads()} threads" in text
    assert torch.__version__ in text
