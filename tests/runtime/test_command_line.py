"""How commands end: a signal still cleans up, and an output that cannot be written is refused before any work."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from runtime import command_line

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class NoFlags:
    """No flags."""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_termination_cleans_up(number: signal.Signals, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    half_written = tmp_path / "out.part"

    def main(_: NoFlags) -> None:
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
            command_line.run(main, NoFlags)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert ended.value.code == 128 + number
    assert not half_written.exists()


def test_overlong_file_name_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(command_line.UserError, match=r"--output: .*choose another"):
        command_line.check_output(tmp_path / ("x" * 300 + ".mp4"), "--output", (".mp4",))


@dataclass(frozen=True)
class Flags:
    """Makes something."""

    num_references: int
    """How many reference images are used for every frame, which is said in a text of more than one line."""
    output: Path = Path("out.mp4")
    """The file to write."""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num-reference", "3", "--num-references", "5"], "Unrecognized options: --num-reference"),
        (["--num-references", "many"], "--num-references: invalid literal"),
        (["--num-references", "5", "--output"], "Missing value for argument '--output'"),
        ([], "--num-references INT"),
        (["--num-references", "5", "stray"], "Unrecognized options: stray"),
    ],
)
def test_unreadable_flags_are_explained(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["command.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        command_line.run(lambda _: None, Flags)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert message in error and "command.py --help" in error and "Traceback" not in error


@pytest.mark.parametrize(("shell", "code"), [("", 129), ("trap '' HUP; ", 0)])
def test_hangup_ends_a_command_unless_ignored(shell: str, code: int) -> None:
    assert run_script(f"{shell}exec {sys.executable} -c", "os.kill(os.getpid(), signal.SIGHUP)").returncode == code


def run_script(shell: str, main: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a command whose `main` is one expression, started by the shell."""
    imports = "import os, signal, sys, tests.runtime.test_command_line as t"
    script = f"{imports}; t.command_line.run(lambda _: {main}, t.NoFlags)"
    return subprocess.run(
        ["bash", "-c", f'{shell} "$0"', script],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=_heed_hangup,
    )


def _heed_hangup() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup


def test_characters_unknown_to_the_terminal_are_escaped() -> None:
    ended = run_script(f"{sys.executable} -c", "print('PSNR \u2191')", PYTHONIOENCODING="cp1252")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "PSNR \\u2191\n", "")


def test_broken_pipe_is_silent() -> None:
    into_nothing = "(p := os.pipe(), os.close(p[0]), os.dup2(p[1], 1), print(1))"
    assert run_script(f"{sys.executable} -c", into_nothing).stderr == ""


def test_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    with pytest.raises(command_line.UserError, match=r"folder could not be written \(.*\); free space"):
        (tmp_path / "folder").mkdir()
        command_line.write_whole(tmp_path / "folder", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_hard_link_to_an_input_is_refused_as_output(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    (tmp_path / "b.mp4").hardlink_to(tmp_path / "a.mp4")
    with pytest.raises(command_line.UserError, match=r"b\.mp4 would overwrite an input"):
        command_line.check_output(tmp_path / "b.mp4", "--output", inputs=[tmp_path / "nothing", tmp_path / "a.mp4"])
