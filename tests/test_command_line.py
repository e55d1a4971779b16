"""How commands end: by a signal they still tidy up; an output that cannot be is told before any work."""

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

import command_line


@dataclass(frozen=True)
class Nothing:
    """No flags."""


def test_terminated_it_tidies_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    half_written = tmp_path / "out.part"

    def main(_: Nothing) -> None:
        half_written.touch()
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        finally:
            half_written.unlink()

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(sys, "argv", ["command"])
    try:
        with pytest.raises(SystemExit) as ended:
            command_line.run(main, Nothing)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.code == 143
    assert not half_written.exists()


def test_a_name_that_is_too_long_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(command_line.UserError, match=r"--output: .*choose another"):
        command_line.check_output(tmp_path / ("x" * 300 + ".mp4"), "--output", (".mp4",))
