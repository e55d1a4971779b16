"""The report survives a kill, keeps the last record of each clip, and does not depend on the order of processing."""

import errno
import json
import os
from pathlib import Path

import pytest

from preprocess.report import ReportFile, read, summary
from runtime.command_line import UserError

CACHED = {"name": "a", "status": "cached", "frames": 30}
FAILED = {"name": "b", "status": "failed", "reason": "no face", "detail": ""}
FULL = {"name": "c", "status": "failed", "reason": "disk full", "detail": ""}


def test_the_order_of_work_does_not_matter(tmp_path: Path) -> None:
    contents = []
    for folder, order in (("one", (CACHED, FAILED, FULL)), ("two", (FULL, CACHED, FAILED))):
        (tmp_path / folder).mkdir()
        report = ReportFile(tmp_path / folder)
        for record in order:
            report.add(record)
        report.finish()
        contents.append((tmp_path / folder / "report.jsonl").read_bytes())
    assert contents[0] == contents[1] and contents[0].count(b"\n") == 3


def test_a_killed_run_is_continued(tmp_path: Path) -> None:
    report = ReportFile(tmp_path, "2/3")
    report.add(FAILED)
    report.add(FULL)
    report._file.close()
    report._lock.release()
    path = tmp_path / "report.2-of-3.jsonl"
    path.write_text(path.read_text() + '{"name": "a", "sta')
    again = ReportFile(tmp_path, "2/3")
    assert again.settled("b"), "it has no face now either"
    assert not again.settled("c"), "the disk may have room now"
    assert not again.settled("a")
    again.add(CACHED)
    again.add({**FULL, "status": "cached"})
    again.finish()
    assert [record["status"] for record in read([path]).values()] == ["cached", "failed", "cached"]


def test_reports_of_all_shards_count(tmp_path: Path) -> None:
    """The newest line of a clip counts, whichever shard wrote it."""
    faceless = {"name": "a", "status": "failed", "reason": "no face"}
    for time, (part, records) in enumerate({"": [faceless, FAILED], ".1-of-2": [CACHED]}.items()):
        path = tmp_path / f"report{part}.jsonl"
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        os.utime(path, (time, time))
    report = ReportFile(tmp_path, "2/2")
    assert report.settled("b") and not report.settled("a")


def test_one_run_at_a_time(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    report = ReportFile(tmp_path)
    with pytest.raises(UserError, match=r"another run is writing .*report\.jsonl"):
        ReportFile(tmp_path)
    ReportFile(tmp_path, "1/2").finish()
    report.finish()
    ReportFile(tmp_path).finish()


def test_a_file_system_without_locks_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(pytest.importorskip("fcntl"), "flock", refuse)
    report = ReportFile(tmp_path)
    report.add(CACHED)
    report.finish()
    assert read([tmp_path / "report.jsonl"]) == {"a": CACHED}


def test_summary_counts_by_reason() -> None:
    text = summary([CACHED, {**CACHED, "name": "d"}, FAILED, FULL])
    assert text.splitlines() == ["      2 cached", "      1 failed: disk full", "      1 failed: no face"]
