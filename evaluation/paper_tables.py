"""The paper's tables 1, 4 and 5, and tables of other videos, from a folder of videos and weights."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm import tqdm

from datasets.splits import match, quoted, read_list
from evaluation import protocol
from evaluation.generate_videos import KINDS, Job, Method, make_videos, read_sound
from evaluation.protocol import parse_named
from evaluation.scoring import Pools, Scorer
from evaluation.tables import ClipScore, Row, Table, make_output_folder, published_rows, reason_of, summarise
from media.audio import frames_for_samples
from metrics.image_quality import FeaturePool, fid
from networks import SHIPPED_WEIGHTS, Networks
from runtime.command_line import UserError, at_least, naming, write_whole

ORIGINAL = "original"
UNTOUCHED = "untouched video, new sound"
NO_VIDEO = "no video of that name"


Rows = dict[str, dict[str, Path | str]]  # row -> clip -> video, or why there is none


@dataclass(frozen=True)
class TableConfig:
    """Makes the videos of a table (existing ones are kept), scores them and prints the table beside the paper's."""

    videos: Path
    """Folder of original videos, for instance LRS2's main."""
    output: Path
    """Folder for the videos and for the table as Markdown and JSON."""
    clip_list: Path | None = None
    """Published list of clips to choose from, one per line; without it all videos."""
    count: int = protocol.COUNT
    """Clips chosen."""
    seed: int = protocol.SEED
    """Of the choice, and of who gets whose sound in dubbing."""
    protocol: Literal["reconstruction", "dubbing", "both"] = "both"
    """The clip's own sound, another clip's, or both."""
    weights: tuple[str, ...] = (f"IP-LAP={SHIPPED_WEIGHTS}",)
    """Our rows, each NAME=FOLDER of weights; table 4 has one for each variant."""
    methods: tuple[str, ...] = ()
    """Other rows, each NAME=FOLDER of videos (or FOLDER/reconstruction and FOLDER/dubbing), framed in any way."""
    baselines: bool = True
    """Rows for the aligned nearest reference and for static lips."""
    num_references: tuple[int, ...] = (25,)
    """Reference images of the renderer; table 5 has a row for each number."""
    paper: Literal["LRS2", "LRS3", "none"] = "LRS2"
    """Data set of the paper's rows in table 1; none leaves the paper's rows out."""
    workers: int = 1
    """Processes that make videos."""
    device: str = "cpu"
    """cpu, cuda, mps or auto."""


@dataclass(frozen=True)
class Table4Config(TableConfig):
    """Ablation of stage 2: weights trained without warping, without audio, and in full, NAME=FOLDER each."""

    protocol: Literal["reconstruction", "dubbing", "both"] = "reconstruction"
    baselines: bool = False


@dataclass(frozen=True)
class Table5Config(Table4Config):
    """How many reference images are worth their time."""

    num_references: tuple[int, ...] = (1, 5, 10, 25)


@dataclass(frozen=True)
class ScoreTableConfig(TableConfig):
    """Scores any videos and methods, without the paper's rows."""

    protocol: Literal["reconstruction", "dubbing", "both"] = "reconstruction"
    paper: Literal["LRS2", "LRS3", "none"] = "none"


@dataclass
class Plan:
    """The rows of one protocol and what they need."""

    dubbing: bool
    sounds: dict[str, str]  # clip -> the clip whose sound it gets
    originals: dict[str, Path]  # clip -> video
    rows: Rows
    jobs: list[Job]  # videos to make


def our_methods(config: TableConfig) -> list[Method]:
    """The rows that are made here. Raises UserError if a folder holds no weights, or two rows share a name."""
    with naming("--weights"):
        weights = parse_named(config.weights)
    with naming("--methods"):
        others = parse_named(config.methods)
    methods = []
    for name, folder in weights.items():
        for number in config.num_references:
            row = name
            if len(config.num_references) > 1:
                row = f"N={number}" if len(weights) == 1 else f"{name}, N={number}"
            method = Method(row, folder, "ours", number, config.device, config.output / "tracks")
            on_cpu = replace(method.config, device="cpu")
            with naming("--weights"):  # a wrong folder is found now, not after the first hour
                Networks.from_weights(folder, on_cpu)
            methods.append(method)
    if config.baselines and methods:
        methods += [replace(methods[0], name=kind, kind=kind) for kind in KINDS if kind != "ours"]
    names = [ORIGINAL, UNTOUCHED, *others, *(method.name for method in methods)]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"--weights, --methods: two rows are named {name}; each needs a name of its own")
    return methods


def find_others(config: TableConfig, place: str, clips: list[str]) -> Rows:
    """The videos of other methods.

    Raises UserError if a method has no such video, or one folder for two protocols.
    """
    rows: Rows = {}
    for method, folder in parse_named(config.methods).items():
        with naming(f"--methods {method}"):
            own = folder / place
            if not own.is_dir():
                if config.protocol == "both":
                    raise UserError(f"there is no {own}; or choose one --protocol")
                own = folder
            videos = protocol.find_videos(own)
            rows[method] = {clip: videos[name] for clip, name in match(clips, videos, own).items()}
    return rows


def plan_table(config: TableConfig, place: str, videos: dict[str, Path], methods: list[Method]) -> Plan:
    """Finds whatever a user may have got wrong, before any video is made. Writes the list of clips and sounds.

    Args:
        config: of the table.
        place: reconstruction or dubbing.
        videos: clip -> video of the folder.
        methods: rows to make.
    """
    names = videos
    if config.clip_list:
        with naming("--clip-list"):
            names = read_list(config.clip_list)
    clips = protocol.choose_clips(names, config.count, config.seed)
    dubbing = place == "dubbing"
    sounds = protocol.exchange_sounds(clips, config.seed) if dubbing else dict(zip(clips, clips, strict=True))
    lines = [f"{quoted(clip)} {quoted(sound)}\n" for clip, sound in sounds.items()]
    write_whole(config.output / f"{place}_pairs.txt", "".join(lines))
    originals = {clip: videos[name] for clip, name in match(clips, videos, "--clip-list").items()}
    rows: Rows = {UNTOUCHED if dubbing else ORIGINAL: dict(originals)}
    rows |= find_others(config, place, clips)
    jobs = []
    for method in methods:  # one after the other: a process keeps the networks of one
        rows[method.name] = {}
        folder = config.output / place / method.name
        for clip, sound in sounds.items():
            if clip in originals and sound in originals:
                jobs.append(Job(method, clip, originals[clip], originals[sound], folder / f"{clip}.mp4"))
    return Plan(dubbing, sounds, originals, rows, jobs)


def make_rows(plan: Plan, workers: int, scorer: Scorer) -> list[Row]:
    """Makes the videos, then scores clip by clip through all methods, so that each original is tracked once."""
    for job, reason in tqdm(make_videos(plan.jobs, workers), "making", len(plan.jobs), unit="video"):
        plan.rows[job.method.name][job.name] = reason or job.output
    scores: dict[str, list[ClipScore]] = {row: [] for row in plan.rows}
    pools = {row: Pools(FeaturePool(), FeaturePool()) for row in plan.rows}
    for clip, sound in tqdm(plan.sounds.items(), "scoring", unit="clip"):
        original = None
        wav = np.zeros(0, dtype=np.float32)
        reason = ""
        try:
            original = scorer.open(plan.originals[clip])
            num_frames = len(original.track.found) if clip == sound else None
            wav = read_sound(plan.originals[sound], num_frames)
        except KeyError as error:
            reason = f"no original named {error.args[0]}"
        except Exception as error:
            reason = reason_of(error)
        for row, videos in plan.rows.items():
            video = videos.get(clip, NO_VIDEO)
            if original and not reason and isinstance(video, Path):
                score = scorer.score(clip, original, video, wav, pools[row], compare=not plan.dubbing)
            else:
                score = ClipScore(clip, expected=frames_for_samples(len(wav)), reason=reason or str(video))
            scores[row].append(score)
    return [summarise(row, clips, fid(*pools[row])) for row, clips in scores.items()]


def paper_rows(key: str, dubbing: bool) -> list[Row]:
    """The paper's rows with the columns of one protocol: LSE-C in dubbing, all others in reconstruction."""
    rows = published_rows(key)
    for row in rows:
        row.cells = {column: cell for column, cell in row.cells.items() if (column == "LSE-C") == dubbing}
    return [row for row in rows if row.cells]


def describe(plan: Plan, rows: list[Row], scorer: Scorer) -> list[str]:
    """The lines below a table: how it was scored, and what is missing."""
    clips = rows[0].clips
    frames = sum(score.frames for score in clips)
    faceless = ", ".join(f"{row.name} {sum(score.faceless for score in row.clips)}" for row in rows)
    notes = [f"clips: {len(clips)}, frames: {frames} [95 % interval over clips]; LSE: whole frames"]
    if plan.dubbing:
        notes.append("articulation, jitter: relative to the source video, which says something else")
        notes += [line for line in scorer.missing if line.startswith("LSE")]
    else:
        notes.append("images: face box; LipLMD: mesh points, relative to its side; CSIM: aligned, frame by frame")
        notes += scorer.missing
    return [*notes, f"frames without a face: {faceless}"]


def make_table(key: str, config: TableConfig) -> None:
    """Prints and writes a table, one for each protocol."""
    at_least(1, workers=config.workers)
    places = ("reconstruction", "dubbing") if config.protocol == "both" else (config.protocol,)
    if config.output.resolve().is_relative_to(config.videos.resolve()):
        raise UserError(f"--output: {config.output} lies in --videos, where its videos would pass for originals")
    make_output_folder(config.output)
    with naming("--videos"):
        videos = protocol.find_videos(config.videos)
    methods = our_methods(config)
    plans = {place: plan_table(config, place, videos, methods) for place in places}
    with naming("--device"):
        scorer = Scorer(config.device)
    for line in scorer.missing:
        print(line, file=sys.stderr)
    for place, plan in plans.items():
        rows = make_rows(plan, config.workers, scorer)
        notes = describe(plan, rows, scorer)
        published = f"{key} {config.paper}" if key == "table1" else key
        paper = paper_rows(published, plan.dubbing) if config.paper != "none" else []
        if paper:
            notes.append(f"(paper): {published} as printed; it names neither its clips nor its variants")
        Table(f"{key}, {place}", rows + paper, notes).publish(config.output, f"{key}_{place}")


def table1(config: TableConfig) -> None:
    make_table("table1", config)


def table4(config: Table4Config) -> None:
    make_table("table4", config)


def table5(config: Table5Config) -> None:
    make_table("table5", config)


def score(config: ScoreTableConfig) -> None:
    make_table("score", config)
