"""The paper's tables 1, 4 and 5, and tables of other videos, from a folder of videos and weights."""

import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm import tqdm

from datasets.splits import match, read_list
from evaluation import protocol
from evaluation.generate_videos import KINDS, Job, Method, make_videos, read_sound
from evaluation.protocol import Pair, parse_named
from evaluation.scoring import Pools, ScoreConfig, Scorer
from evaluation.tables import ClipScore, Row, Table, make_output_folder, published_rows, reason_of, summarise
from media.audio import frames_for_samples
from metrics.image_quality import FeaturePool, fid
from networks import SHIPPED_WEIGHTS, Networks
from runtime.command_line import UserError, at_least, naming

ORIGINAL = "original"
UNTOUCHED = "untouched video, new sound"
NO_VIDEO = "no video of that name, or several"


@dataclass(frozen=True)
class TableConfig:
    """Makes the videos of a table (existing ones are kept), scores them and prints the table beside the paper's."""

    videos: Path
    """Folder of original videos, for instance LRS2's main."""
    output: Path
    """Folder for the videos and for the table as Markdown, LaTeX and JSON."""
    clip_list: Path | None = None
    """Published list of clips to choose from, one per line; without it all videos."""
    pairs: Path | None = None
    """Your own list instead, `video sound` in each line; reconstruction gives each of its videos its own sound."""
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
    score: ScoreConfig = field(default_factory=ScoreConfig)


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
    pairs: list[Pair]
    originals: dict[str, Path]  # clip -> video
    rows: dict[str, dict[str, Path | str]]  # row -> name of a result -> video, or why there is none
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
            method = Method(row, folder, "ours", number, config.score.device)
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


def find_pairs(config: TableConfig, dubbing: bool, clips: Iterable[str]) -> list[Pair]:
    """Whose video gets whose sound, of the clips in the folder."""
    if config.pairs:
        with naming("--pairs"):
            pairs = protocol.read_pairs(config.pairs)
        if dubbing:
            return pairs
        return protocol.own_sounds(list(dict.fromkeys(pair.clip for pair in pairs)))
    if config.clip_list:
        with naming("--clip-list"):
            clips = read_list(config.clip_list)
    chosen = protocol.choose_clips(list(clips), config.count, config.seed)
    if dubbing:
        return protocol.exchanged_sounds(chosen, config.seed)
    return protocol.own_sounds(chosen)


def find_others(config: TableConfig, place: str, pairs: list[Pair]) -> dict[str, dict[str, Path | str]]:
    """The videos of other methods: row -> name -> video.

    Raises UserError if a method has no such video, or one folder for two protocols.
    """
    names = [pair.name for pair in pairs]
    rows: dict[str, dict[str, Path | str]] = {}
    for method, folder in parse_named(config.methods).items():
        with naming(f"--methods {method}"):
            own = folder / place
            if not own.is_dir():
                if config.protocol == "both":
                    raise UserError(f"there is no {own}; or choose one --protocol")
                own = folder
            videos = protocol.match_videos(names, protocol.find_videos(own))
            if not videos:
                raise UserError(f"no file in {own} is named like a clip, such as {names[0]}")
            rows[method] = dict(videos)
    return rows


def plan_table(config: TableConfig, place: str, videos: dict[str, Path], methods: list[Method]) -> Plan:
    """Finds whatever a user may have got wrong, before any video is made. Writes the list of pairs.

    Args:
        config: of the table.
        place: reconstruction or dubbing.
        videos: clip -> video of the folder.
        methods: rows to make.
    """
    dubbing = place == "dubbing"
    pairs = find_pairs(config, dubbing, videos)
    protocol.write_pairs(config.output / f"{place}_pairs.txt", pairs)
    clips = sorted({pair.clip for pair in pairs} | {pair.sound for pair in pairs})
    matched = match(clips, videos, "--clip-list or --pairs")
    originals = {clip: videos[name] for clip, name in matched.items()}
    first = UNTOUCHED if dubbing else ORIGINAL
    rows: dict[str, dict[str, Path | str]] = {first: {}}
    for pair in pairs:
        if pair.clip in originals:
            rows[first][pair.name] = originals[pair.clip]
    rows |= find_others(config, place, pairs)
    jobs = []
    for method in methods:  # one after the other: a process keeps the networks of one
        rows[method.name] = {}
        folder = config.output / place / method.name
        for pair in pairs:
            if pair.clip in originals and pair.sound in originals:
                output = folder / f"{pair.name}.mp4"
                jobs.append(Job(method, pair.name, originals[pair.clip], originals[pair.sound], output))
    return Plan(dubbing, pairs, originals, rows, jobs)


def make_rows(plan: Plan, workers: int, scorer: Scorer) -> list[Row]:
    """Makes the videos, then scores clip by clip through all methods, so that each original is tracked once."""
    for job, reason in tqdm(make_videos(plan.jobs, workers), "making", len(plan.jobs), unit="video"):
        plan.rows[job.method.name][job.name] = reason or job.output
    scores: dict[str, list[ClipScore]] = {row: [] for row in plan.rows}
    pools = {row: Pools(FeaturePool(), FeaturePool()) for row in plan.rows}
    for pair in tqdm(plan.pairs, "scoring", unit="clip"):
        original = None
        wav = np.zeros(0, dtype=np.float32)
        reason = ""
        try:
            for clip in (pair.clip, pair.sound):
                if clip not in plan.originals:
                    raise UserError(f"no original named {clip}")
            original = scorer.open(plan.originals[pair.clip])
            num_frames = len(original.track.found) if pair.clip == pair.sound else None
            wav = read_sound(plan.originals[pair.sound], num_frames)
        except Exception as error:
            original = None
            reason = reason_of(error)
        for row, videos in plan.rows.items():
            video = videos.get(pair.name, NO_VIDEO)
            if original and isinstance(video, Path):
                score = scorer.score(pair.name, original, video, wav, pools[row], compare=not plan.dubbing)
            else:
                score = ClipScore(pair.name, expected=frames_for_samples(len(wav)), reason=reason or str(video))
            scores[row].append(score)
    return [summarise(row, clips, {"FID": fid(*pools[row])}) for row, clips in scores.items()]


def list_notes(rows: list[Row]) -> list[str]:
    """The notes on single clips, each once per method, with the clips that it is about."""
    clips_of_note: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        for score in row.clips:
            if score.note:
                clips_of_note[f"{row.name}: {score.note}"].append(score.clip)
    lines = []
    for note, clips in clips_of_note.items():
        others = f" and {len(clips) - 1} more" if len(clips) > 1 else ""
        lines.append(f"{note} ({clips[0]}{others})")
    return lines


def paper_rows(key: str, dubbing: bool) -> list[Row]:
    """The paper's rows with the columns of one protocol: LSE-C in dubbing, all others in reconstruction."""
    rows = published_rows(key)
    for row in rows:
        row.cells = {column: cell for column, cell in row.cells.items() if (column == "LSE-C") == dubbing}
    return [row for row in rows if row.cells]


def describe(plan: Plan, rows: list[Row], scorer: Scorer) -> list[str]:
    """The lines below a table: how it was scored, and what is missing."""
    options = scorer.config
    clips = rows[0].clips
    frames = sum(score.frames for score in clips)
    faceless = ", ".join(f"{row.name} {sum(score.faceless for score in row.clips)}" for row in rows)
    notes = [f"clips: {len(clips)}, frames: {frames} [95 % interval over clips]; LSE: {options.sync} protocol"]
    if plan.dubbing:
        notes.append("articulation, jitter: relative to the source video, which says something else")
        notes += [line for line in scorer.missing if line.startswith("LSE")]
    else:
        notes.append(f"images: face box; LipLMD: {options.points} points, relative to its side; CSIM: {options.csim}")
        notes += scorer.missing
    return [*notes, f"frames without a face: {faceless}", *list_notes(rows)]


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
    scorer = Scorer(config.score)
    for line in scorer.missing:
        print(line, file=sys.stderr)
    for place, plan in plans.items():
        rows = make_rows(plan, config.workers, scorer)
        notes = describe(plan, rows, scorer)
        if config.paper != "none":
            published = f"{key} {config.paper}" if key == "table1" else key
            rows += paper_rows(published, plan.dubbing)
            notes.append(f"(paper): {published} as printed; it names neither its clips nor its variants")
        Table(f"{key}, {place}", rows, notes).publish(config.output, f"{key}_{place}")


def table1(config: TableConfig) -> None:
    make_table("table1", config)


def table4(config: Table4Config) -> None:
    make_table("table4", config)


def table5(config: Table5Config) -> None:
    make_table("table5", config)


def score(config: ScoreTableConfig) -> None:
    make_table("score", config)
