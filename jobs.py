"""Lists of videos to dub, one per row: python inference.py --jobs jobs.csv

    video,audio,output,face,start
    talk.mp4,speech.wav,dubbed.mp4,,
    two.mp4,anna.wav,dialogue.mp4,left,
    two.mp4,ben.wav,dialogue.mp4,right,4.2

Rows with the same output are speakers of one video. Each face is redrawn while its own sound lasts.
"""

import csv
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.command_line import UserError

REQUIRED = ("video", "audio", "output")
OPTIONAL = ("face", "start")


@dataclass(frozen=True)
class Speaker:
    """A person to redraw."""

    audio: Path
    """What the person says."""
    face: str | None = None
    """Which face, as in `DubConfig.face`; None: the face of the config."""
    start: float = 0.0
    """Second of the video at which this sound starts."""


@dataclass(frozen=True)
class Job:
    """One video to make."""

    video: Path
    output: Path
    speakers: list[Speaker]


def read_jobs(path: Path) -> list[Job]:
    """Reads a CSV file with the columns video, audio, output and, optionally, face and start.

    Paths are relative to the folder of the file.

    Raises:
        UserError: the file cannot be read, or a column or a row is wrong; the message names the line of the row.
    """
    jobs: dict[Path, Job] = {}
    for line, row in _read_rows(path):
        where = f"{path}, line {line}"
        for name in REQUIRED:
            if not row[name]:
                raise UserError(f"{where}: no {name}")
        if None in row:
            raise UserError(f"{where}: more values than columns; quote values that contain commas")
        try:
            start = float(row.get("start") or 0)
        except ValueError:
            start = -1.0
        if not 0 <= start < math.inf:
            raise UserError(f"{where}: start {row['start']} is not a number of seconds from 0")
        video, audio, output = (path.parent / row[name] for name in REQUIRED)
        job = jobs.setdefault(output, Job(video, output, []))
        if job.video != video:
            raise UserError(f"{where}: an earlier line makes {output} from {job.video}; give it another name")
        speaker = Speaker(audio, row.get("face") or None, start)
        if any(other.face == speaker.face and other.start == start for other in job.speakers):
            raise UserError(f"{where}: an earlier line has the same output, face and start; change one of them")
        job.speakers.append(speaker)
    return list(jobs.values())


def _read_rows(path: Path) -> list[tuple[int, dict[Any, Any]]]:
    """Returns the rows of the file with their line numbers."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as a CSV file in UTF-8 ({error})") from error
    if not set(REQUIRED) <= set(columns) <= set(REQUIRED + OPTIONAL):
        raise UserError(f"{path}: its first line must be {','.join(REQUIRED + OPTIONAL)}, not {','.join(columns)!r}")
    if not rows:
        raise UserError(f"{path} lists no jobs; add a row below the column names")
    return rows


def run_jobs(jobs: list[Job], dub: Callable[[Job], str]) -> int:
    """Runs the jobs whose output is missing, one after another, and continues after errors.

    Args:
        jobs: from `read_jobs`.
        dub: runs one job and returns a report; raises UserError if the job fails.

    Returns:
        The number of failed jobs. Each failure prints one line with its reason on stderr.
    """
    failed = 0
    for number, job in enumerate(jobs, start=1):
        prefix = f"[{number}/{len(jobs)}]"
        if job.output.exists():
            print(f"{prefix} {job.output}: exists already")
            continue
        try:
            print(f"{prefix} {dub(job)}", flush=True)
        except UserError as error:
            failed += 1
            print(f"{prefix} {job.output}: error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
    return failed
