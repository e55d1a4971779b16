"""How commands end: by a signal they still tidy up; an output that cannot be is told before any work."""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from runtime import command_line

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Nothing:
    """No flags."""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_terminated_it_tidies_up(number: signal.Signals, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    half_written = tmp_path / "out.part"

    def main(_: Nothing) -> None:
        half_written.touch()
        try:
            os.kill(os.getpid(), number)
            time.sleep(10)
        finally:
            half_written.unlink()

    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)}
    monkeypatch.setattr(sys, "argv", ["command"])
    signal.signal(number, signal.SIG_DFL)  # the tests may run under nohup
    try:
        with pytest.raises(SystemExit) as ended:
            command_line.run(main, Nothing)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert ended.value.code == 128 + number
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


@pytest.mark.parametrize(("shell", "code"), [("", 129), ("trap '' HUP; ", 0)])
def test_left_by_its_terminal_it_ends_but_under_nohup_goes_on(shell: str, code: int) -> None:
    assert run_script(f"{shell}exec {sys.executable} -c", "os.kill(os.getpid(), signal.SIGHUP)").returncode == code


def run_script(shell: str, main: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command whose `main` is one expression, started by the shell."""
    script = f"import os, signal, sys, tests.test_command_line as t; t.command_line.run(lambda _: {main}, t.Nothing)"
    command = ["bash", "-c", f'{shell} "$0"', script]
    environment = {**os.environ, **environment}
    heed = lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL)  # noqa: E731 (the tests may run under nohup)
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, preexec_fn=heed
    )


def test_what_a_terminal_cannot_show_is_escaped() -> None:
    ended = run_script(f"{sys.executable} -c", "print('PSNR \u2191')", PYTHONIOENCODING="cp1252")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "PSNR \\u2191\n", "")


def test_when_nobody_reads_on_it_ends_quietly() -> None:
    into_nothing = "(p := os.pipe(), os.close(p[0]), os.dup2(p[1], 1), print(1))"
    assert run_script(f"{sys.executable} -c", into_nothing).stderr == ""


def test_closed_streams_are_nobody_elses() -> None:
    ended = run_script(f"exec <&- 2>&-; exec {sys.executable} -c", "print(os.open(os.devnull, 0) > 2, file=sys.stdout)")
    assert (ended.returncode, ended.stdout) == (0, "True\n")


def test_a_file_that_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    with pytest.raises(command_line.UserError, match=r"folder could not be written \(.*\); free space"):
        (tmp_path / "folder").mkdir()
        command_line.write_whole(tmp_path / "folder", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_another_name_of_an_input_is_an_input(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    (tmp_path / "b.mp4").hardlink_to(tmp_path / "a.mp4")
    with pytest.raises(command_line.UserError, match=r"b\.mp4: would overwrite an input"):
        command_line.check_output(tmp_path / "b.mp4", "--output", inputs=[tmp_path / "nothing", tmp_path / "a.mp4"])
