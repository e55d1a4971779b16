"""The user study of Table 2: a web page that asks for opinion scores, and the table of the answers."""

import base64
import json
import secrets
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from operator import itemgetter
from pathlib import Path

import numpy as np
from numpy import ndarray

from evaluation import protocol
from evaluation.tables import ClipScore, Table, make_output_folder, published_rows, summarise
from media.video import Video
from media.writer import VideoWriter
from metrics.lip_motion import nan_mean
from runtime.command_line import UserError, check_output, naming, write_whole

TEMPLATE = Path(__file__).with_name("study.html")
SLOT = "/*STUDY*/null/*END*/"
QUESTIONS = {
    "image quality": "How good is the picture?",
    "lip sync": "How well do the lips follow the speech?",
    "identity": "How much does the face stay the same person?",
}
CHECKS = 2  # attention checks
CRF = 20  # quality of the videos in the page
INVALID = (OSError, ValueError, LookupError, TypeError, AttributeError)  # raised by files with other content


@dataclass(frozen=True)
class Key:
    """What `study` hides from the participants."""

    id: str
    trials: dict[str, tuple[str, str]]  # number -> method, clip
    checks: dict[str, int]  # name -> the right answer


@dataclass(frozen=True)
class Study:
    """Makes the user study: one self-contained page from folders of videos that does not show which method is which."""

    methods: tuple[str, ...]
    """NAME=FOLDER of each method's videos."""
    output: Path
    """The page (.html). NAME.key.json is written beside it; table2 needs it, and participants must not get it."""
    count: int = 10
    """Number of clips, chosen among those that every method has (the paper: 5 from each dataset)."""

    def run(self) -> None:
        """Writes the page and its key."""
        check_output(self.output, "--output", (".html",))
        key_path = self.output.with_suffix(".key.json")
        if key_path.exists():
            raise UserError(f"--output: {key_path} belongs to an earlier study, which needs it; choose another name")
        videos = self.choose_videos()
        trials = {secrets.token_hex(5): video for video in videos}
        checks = {f"check{i}": 1 + secrets.randbelow(5) for i in range(CHECKS)}
        key = Key(secrets.token_hex(6), trials, checks)
        page = {
            "id": key.id,
            "checks": checks,
            "questions": list(QUESTIONS.values()),
            "videos": {number: encode_video(videos[trials[number]]) for number in sorted(trials)},
        }
        script = json.dumps(page).replace("</", "<\\/")
        write_whole(self.output, TEMPLATE.read_text(encoding="utf-8").replace(SLOT, script))
        write_whole(key_path, json.dumps(asdict(key)))
        print(f"{self.output}: videos: {len(videos)}, {len(script) / 1e6:.1f} MB; keep {key_path} to yourself")

    def choose_videos(self) -> dict[tuple[str, str], Path]:
        """Maps (method, clip) to the video, for the chosen clips. Raises UserError if no clip is in all folders."""
        with naming("--methods"):
            folders = protocol.parse_named(self.methods)
            found = {method: protocol.videos_by_name(folder) for method, folder in folders.items()}
        clips = Counter(clip for videos in found.values() for clip in videos)
        common = [clip for clip, count in clips.items() if count == len(found)]
        if not common:
            raise UserError("--methods: no clip is in all folders")
        print(f"clips in all folders: {len(common)} of {len(clips)}")
        chosen = protocol.choose_clips(common, self.count)
        return {(method, clip): videos[clip] for method, videos in found.items() for clip in chosen}


def encode_video(path: Path) -> str:
    """Encodes a video as a data: URL, without its file's name, in H.264 4:2:0 and AAC, which every browser plays."""
    video = Video(path, fps=None)
    sounds = [(path, 0.0)] if video.has_audio else []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "video.mp4"
        with VideoWriter(copy, video.fps, (video.width, video.height), sounds, crf=CRF) as writer:
            for frame in video:
                writer.write(frame)
        return "data:video/mp4;base64," + base64.b64encode(copy.read_bytes()).decode()


@dataclass(frozen=True)
class Table2:
    """Computes the user study's mean opinion scores from the files that participants sent."""

    key: Path
    """NAME.key.json, which `study` wrote beside the page."""
    answers: tuple[Path, ...]
    """Files with answers, or folders of them."""
    output: Path | None = None
    """Folder for the table as Markdown and JSON."""

    def run(self) -> None:
        """Prints and writes the table."""
        make_output_folder(self.output)
        try:
            key = Key(**json.loads(self.key.read_text(encoding="utf-8")))
        except INVALID as error:
            raise UserError(f"--key: {self.key} is not the key of a study ({error})") from error
        people = read_answers(self.answers, key)
        if not people:
            raise UserError(f"--answers: no file holds usable answers to study {key.id}")
        methods = np.array([method for method, _ in key.trials.values()])
        rows = []
        for method in dict.fromkeys(methods.tolist()):
            scores = []
            for number, ratings in enumerate(people, start=1):  # without names
                means = map(nan_mean, ratings[methods == method].T)
                scores.append(ClipScore(f"person {number}", dict(zip(QUESTIONS, means, strict=True))))
            rows.append(summarise(method, scores))
        answers = np.isfinite(people).sum()
        notes = [
            f"people: {len(people)}, answers: {answers}, from 1 to 5; means over people [95 % interval over people]"
        ]
        Table("table2", [*rows, *published_rows("table2")], notes).publish(self.output)


def read_ratings(content: dict, key: Key) -> ndarray:
    """Reads one participant's ratings (trials, questions), 1 to 5, NaN for none.

    Raises one of `INVALID` if the file holds something else, or a wrong answer to an attention check.
    """
    if content["study"] != key.id:
        raise ValueError(f"they are to another study: {content['study']}, not {key.id}")
    items = [*key.trials, *key.checks]
    ratings = np.full((len(items), len(QUESTIONS)), np.nan)
    for item, values in content["answers"].items():
        ratings[items.index(item), : len(values)] = np.array(values, dtype=float)  # null becomes NaN
    if ((ratings < 1) | (ratings > 5)).any():
        raise ValueError("an answer is not from 1 to 5")
    trials, checks = np.split(ratings, [len(key.trials)])
    expected = np.array(list(key.checks.values()))[:, None]
    if (np.isfinite(checks) & (checks != expected)).any():
        raise ValueError(f"{content['participant']} failed an attention check")
    return trials


def read_answers(paths: tuple[Path, ...], key: Key) -> list[ndarray]:
    """Reads the ratings (trials, questions) of every participant, NaN for none.

    Unusable files are named and left out. If a participant has several usable files, the last one counts.
    """
    files = []
    for path in paths:
        files += sorted(path.glob("*.json")) if path.is_dir() else [path]
    found = []
    for path in files:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            participant = (str(content["participant"]), str(content.get("started")))  # two people may share a name
            found.append((str(content.get("saved")), participant, read_ratings(content, key)))
        except INVALID as error:
            print(f"{path} is left out: its answers cannot be used ({error})", file=sys.stderr)
    found.sort(key=itemgetter(0))
    latest = {participant: ratings for _, participant, ratings in found}
    return list(latest.values())
