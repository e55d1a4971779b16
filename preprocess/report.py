"""What became of each clip: a line of JSON each, appended as it happens and sorted at the end."""

import contextlib
import json
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from runtime.command_line import UserError, write_whole, writing

Record = dict[str, Any]  # name, status ("cached", "rejected" by a filter, "failed"); reason, detail, measures, notes

# Worth another try on the next run.
PASSING = frozenset({"no permission", "disk full", "system error", "too little memory", "process died"})


class Report:
    """The report of one shard, `report.jsonl` or `report.2-of-8.jsonl` in the cache folder.

    Raises:
        UserError: it can't be written, or another run is writing it.
    """

    def __init__(self, root: Path, shard: str = "1/1") -> None:
        part = "" if shard == "1/1" else f".{shard.replace('/', '-of-')}"
        self.path = root / f"report{part}.jsonl"
        with writing(f"--cache: {self.path}"):
            self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 (closed by finish)
        with contextlib.suppress(ImportError, OSError):  # Windows, and a cluster's file system, may have no locks
            import fcntl

            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                why = f"another run is writing {self.path}; wait for it or take another shard"
                raise UserError(f"--shard: {why}") from None
        self.records = {record["name"]: record for record in read([self.path])}
        self._known = {record["name"]: record for record in read_all(root)}  # shards may have been cut otherwise

    def settled(self, name: str) -> bool:
        """Whether an earlier run failed on or rejected the clip for a reason that will not go away by itself."""
        record = self._known.get(name, {})
        return record.get("status") in ("failed", "rejected") and record["reason"] not in PASSING

    def add(self, record: Record) -> None:
        """Notes a clip's fate at once, so that a killed run knows it when started again."""
        self.records[record["name"]] = record
        try:
            self._file.write(f"\n{_line(record)}".encode())  # a killed run may have left half a line
        except OSError as error:
            print(f"{self.path}: {error.strerror}", file=sys.stderr)

    def finish(self) -> None:
        """Rewrites the report in the order of names: the same whatever the order of work was."""
        self._file.close()  # Windows replaces no open file
        try:
            write_whole(self.path, "".join(_line(self.records[name]) for name in sorted(self.records)))
        except UserError as error:
            print(f"{error}; it stays in the order of work", file=sys.stderr)


def _line(record: Record) -> str:
    return json.dumps(record, sort_keys=True) + "\n"


def read_all(root: Path) -> list[Record]:
    """The records of all shards of a cache, the newest of each name."""
    return read(sorted(root.glob("report*.jsonl"), key=lambda path: path.stat().st_mtime))


def read(paths: Iterable[Path]) -> list[Record]:
    """The records of report files, the last of each name; half a line that a killed run left is skipped."""
    records: dict[str, Record] = {}
    for line in (line for path in paths if path.exists() for line in path.read_bytes().splitlines()):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            record = json.loads(line)
            records[record["name"]] = record
    return list(records.values())


def summary(records: Iterable[Record]) -> str:
    """Counts by what happened and why, a line each."""
    counts = Counter(f"{r['status']}: {r['reason']}" if "reason" in r else r["status"] for r in records)
    return "\n".join(f"{count:7d} {what}" for what, count in sorted(counts.items()))
