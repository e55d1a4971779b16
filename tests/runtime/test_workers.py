"""Processes that die cost their task only, and an early end leaves none behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runtime import workers
from runtime.workers import each


def square(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def note_and_wait(path: Path) -> None:
    path.write_text(str(os.getpid()))
    try:
        time.sleep(60)
    finally:
        path.write_text("told to end")


@pytest.mark.parametrize("workers", [1, 3])
def test_a_process_that_dies_costs_its_task(workers: int) -> None:
    results = dict(each(square, range(8), workers))
    assert results == {number: None if number == 3 else number * number for number in range(8)}


def test_no_tasks() -> None:
    assert list(each(square, [], 2)) == []


def answer_or_be_deaf(path: Path | None) -> int:
    while path:
        try:
            path.write_text(str(os.getpid()))
            time.sleep(60)
        except SystemExit:
            pass
    return os.getpid()


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_worker_that_will_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "GRACE", 0.2)
    note = tmp_path / "note"
    results = each(answer_or_be_deaf, [None, note], 2)
    assert next(results)[0] is None
    _wait_for(note)
    results.close()  # type: ignore[attr-defined]
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


def _wait_for(path: Path, text: str = "") -> None:
    """Until the file says this, or anything at all."""
    for _ in range(600):
        if path.exists() and (said := path.read_text()) and said == (text or said):
            return
        time.sleep(0.05)
    pytest.fail(f"{path.name} never said {text or 'anything'}")


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_their_parent(tmp_path: Path, how: signal.Signals) -> None:
    code = (
        "from pathlib import Path\n"
        "from workers import each\n"
        "from tests.test_workers import note_and_wait\n"
        f"if __name__ == '__main__': list(each(note_and_wait, [Path({str(tmp_path / 'note')!r})], 1))\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    root = Path(__file__).parents[1]
    parent = subprocess.Popen(
        [sys.executable, script], env={**os.environ, "PYTHONPATH": str(root)}, stderr=subprocess.DEVNULL
    )
    _wait_for(tmp_path / "note")
    parent.send_signal(how)
    parent.wait(20)
    _wait_for(tmp_path / "note", "told to end")
