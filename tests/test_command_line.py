"""How commands end: by a signal they still tidy up; an output that cannot be is told before any work."""

import os
import re
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


@dataclass(frozen=True)
class Flags:
    """Makes something."""

    num_references: int
    """How many reference pictures are looked at for every frame, which is said in a text of more than one line."""
    output: Path = Path("out.mp4")
    """The file to write."""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--num-reference", "3", "--num-references", "5"], r"--num-reference, 3; .*--num-references INT; "),
        (["--num-references", "many"], r"--num-references: invalid .* 'many'; "),
        (["--num-references", "5", "--output"], r"Missing value for argument '--output'"),
        ([], r"Missing .* --num-references INT; "),
        (["--num-references", "5", "stray"], r": stray; "),
    ],
)
@pytest.mark.parametrize("terminal", ["_FORCE_UTF8_BOXES", "_FORCE_ANSI", "neither"])
def test_flags_that_cannot_be_read_are_one_line(
    arguments: list[str], said: str, terminal: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(f"tyro._fmtlib.{terminal}", True, raising=False)
    monkeypatch.setattr(sys, "argv", ["command.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        command_line.run(lambda _: None, Flags)
    assert ended.value.code == 2
    line = capsys.readouterr().err
    assert re.fullmatch(rf"error: .*{said}.*command.py --help\n", line), line
    assert "looked at" not in line and "\x1b" not in line
