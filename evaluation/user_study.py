"""The user study of Table 2: a web page that asks for opinion scores, and the table of the answers."""

import base64
import json
import secrets
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation import protocol
from evaluation.tables import ClipScore, Table, make_output_folder, published_rows, summarise
from media.video import Video
from media.writer import VideoWriter
from metrics.lip_motion import nan_mean
from runtime import command_line
from runtime.command_line import UserError, naming, write_whole

TEMPLATE = Path(__file__).with_name("study.html")
SLOT = "/*STUDY*/null/*END*/"
QUESTIONS = {
    "image quality": "How good is the picture?",
    "lip sync": "How well do the lips follow the speech?",
    "identity": "How much does the face stay the same person?",
}
CRF = 20  # quality of the videos in the page
INVALID = (OSError, ValueError, LookupError, TypeError, AttributeError)  # raised by reading files of another content


@dataclass(frozen=True)
class Study:
    """The user study: one self-contained page from folders of videos. It doesn't show which method is which."""

    methods: tuple[str, ...]
    """NAME=FOLDER of each method's videos."""
    output: Path
    """The page (.html). NAME.key.json is written beside it: table2 needs it, and participants must not get it."""
    count: int = 10
    """Clips, chosen among those that every method has (the paper: 5 from each dataset)."""

    def run(self) -> None:
        """Writes the page and its key."""
        command_line.check_output(self.output, "--output", (".html",))
        key_path = self.output.with_suffix(".key.json")
        if key_path.exists():
            raise UserError(f"--output: {key_path} belongs to an earlier study, which needs it; choose another name")
        videos = self.choose_videos()
        trials = {secrets.token_hex(5): video for video in videos}
        study = secrets.token_hex(6)
        page = {
            "id": study,
            "questions": list(QUESTIONS.values()),
            "trials": [{"id": number, "video": encode_video(videos[trials[number]])} for number in sorted(trials)],
        }
        script = json.dumps(page).replace("</", "<\\/")
        write_whole(self.output, TEMPLATE.read_text(encoding="utf-8").replace(SLOT, script))
        write_whole(key_path, json.dumps({"id": study, "trials": trials}))
        print(f"{self.output}: videos: {len(videos)}, {len(script) / 1e6:.1f} MB; keep {key_path} to yourself")

    def choose_videos(self) -> dict[tuple[str, str], Path]:
        """(method, clip) -> video, of the chosen clips. Raises UserError if no clip is in all folders."""
        with naming("--methods"):
            folders = protocol.parse_named(self.methods)
            found = {method: protocol.find_videos(folder) for method, folder in folders.items()}
        clips = Counter(clip for videos in found.values() for clip in videos)
        common = [clip for clip, count in clips.items() if count == len(found)]
        if not common:
            raise UserError("--methods: no clip is in all folders")
        print(f"clips in all folders: {len(common)} of {len(clips)}")
        chosen = protocol.choose_clips(common, self.count)
        return {(method, clip): videos[clip] for method, videos in found.items() for clip in chosen}


def encode_video(path: Path) -> str:
    """A video as a data: address, in H.264 4:2:0 and AAC, which every browser plays, without its file's name."""
    video = Video(path, fps=None)
    sound = path if video.has_audio else None
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "video.mp4"
        with VideoWriter(copy, video.fps, (video.width, video.height), sound, crf=CRF) as writer:
            for frame in video:
                writer.write(frame)
        return "data:video/mp4;base64," + base64.b64encode(copy.read_bytes()).decode()


@dataclass(frozen=True)
class Table2:
    """The user study's mean opinion scores, from the files that participants sent."""

    key: Path
    """NAME.key.json, which `study` wrote beside the page."""
    answers: tuple[Path, ...]
    """Files of answers, or folders of them."""
    output: Path | None = None
    """Folder for the table as Markdown and JSON."""

    def run(self) -> None:
        """Prints and writes the table."""
        make_output_folder(self.output)
        try:
            key = json.loads(self.key.read_text(encoding="utf-8"))
            study = str(key["id"])
            methods = {number: method for number, (method, _) in key["trials"].items()}
        except INVALID as error:
            raise UserError(f"--key: {self.key} is no key of a study ({error})") from error
        people = read_answers(self.answers, study, list(methods))
        if not people:
            raise UserError(f"--answers: no usable file of answers to study {study}")
        rows = []
        for method in dict.fromkeys(methods.values()):
            own = np.array(list(methods.values())) == method
            scores = []
            for number, ratings in enumerate(people, start=1):  # without names
                means = {question: nan_mean(ratings[own, k]) for k, question in enumerate(QUESTIONS)}
                scores.append(ClipScore(f"person {number}", means, frames=int(np.isfinite(ratings[own]).sum())))
            rows.append(summarise(method, scores))
        answers = sum(np.isfinite(ratings).sum() for ratings in people)
        notes = [f"people: {len(people)}, answers: {answers}, from 1 to 5; [95 % interval over people]"]
        Table("table2", [*rows, *published_rows("table2")], notes).publish(self.output)


def read_ratings(content: dict, study: str, trials: list[str]) -> np.ndarray:
    """One participant's ratings (trials, questions), 1 to 5, NaN for none.

    Raises one of `INVALID` if the file holds something else.
    """
    if content["study"] != study:
        raise ValueError(f"another study's: {content['study']}, not {study}")
    ratings = np.full((len(trials), len(QUESTIONS)), np.nan)
    for item, values in content["answers"].items():
        given = np.array(values, dtype=float)  # null becomes NaN
        if ((given < 1) | (given > 5)).any():
            raise ValueError("an answer is not from 1 to 5")
        ratings[trials.index(item), : len(given)] = given
    return ratings


def read_answers(paths: tuple[Path, ...], study: str, trials: list[str]) -> list[np.ndarray]:
    """Ratings (trials, questions) of every participant, NaN for none: the last of his files that can be used."""
    files = []
    for path in paths:
        files += sorted(path.glob("*.json")) if path.is_dir() else [path]
    latest = {}  # participant -> when saved, ratings
    for path in files:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            participant = (str(content["participant"]), str(content.get("started")))  # two people may have one name
            answers = (str(content.get("saved")), read_ratings(content, study, trials))
        except INVALID as error:
            print(f"{path} is left out: it holds no answers to this study ({error})", file=sys.stderr)
            continue
        if participant not in latest or answers[0] >= latest[participant][0]:
            latest[participant] = answers
    return [ratings for _, ratings in latest.values()]
