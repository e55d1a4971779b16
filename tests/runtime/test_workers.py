"""A worker that dies costs only its task, and an early end leaves no worker behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runtime import workers
from runtime.workers import map_unordered


def square(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def write_pid_and_sleep(path: Path) -> None:
    path.write_text(str(os.getpid()))
    try:
        time.sleep(60)
    finally:
        path.write_text("terminated")


@pytest.mark.parametrize("workers", [1, 3])
def test_dying_worker_costs_only_its_task(workers: int) -> None:
    results = dict(map_unordered(square, range(8), workers))
    assert results == {number: None if number == 3 else number * number for number in range(8)}


def test_no_tasks_give_no_results() -> None:
    assert list(map_unordered(square, [], 2)) == []


def ignore_termination(path: Path | None) -> int:
    while path:
        try:
            path.write_text(str(os.getpid()))
            time.sleep(60)
        except SystemExit:
            pass
    return os.getpid()


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_worker_that_ignores_termination_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "GRACE", 0.2)
    note = tmp_path / "note"
    results = map_unordered(ignore_termination, [None, note], 2)
    assert next(results)[0] is None
    _wait_for(note)
    results.close()  # type: ignore[attr-defined]
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


def _wait_for(path: Path, text: str = "") -> None:
    """Waits until the file holds this text, or any text."""
    for _ in range(600):
        content = path.read_text() if path.exists() else ""
        if content and content == (text or content):
            return
        time.sleep(0.05)
    pytest.fail(f"{path.name} never held {text or 'anything'}")


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_their_parent(tmp_path: Path, how: signal.Signals) -> None:
    code = (
        "from pathlib import Path\n"
        "from runtime.workers import map_unordered\n"
        "from tests.runtime.test_workers import write_pid_and_sleep\n"
        "if __name__ == '__main__':\n"
        f"    list(map_unordered(write_pid_and_sleep, [Path({str(tmp_path / 'note')!r})], 1))\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    root = Path(__file__).parents[2]
    parent = subprocess.Popen(
        [sys.executable, script], env={**os.environ, "PYTHONPATH": str(root)}, stderr=subprocess.DEVNULL
    )
    _wait_for(tmp_path / "note")
    parent.send_signal(how)
    parent.wait(20)
    _wait_for(tmp_path / "note", "terminated")
