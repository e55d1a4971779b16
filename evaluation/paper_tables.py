"""Tables 1, 4 and 5 of the paper, and tables of other videos, from a folder of videos and weights."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from datasets.splits import match, quoted, read_list
from evaluation.generate_videos import BASELINES, Method, Originals, Rows, make_videos
from evaluation.protocol import COUNT, choose_clips, exchange_sounds, parse_named, videos_by_name
from evaluation.scoring import Scorer
from evaluation.tables import ClipScore, Row, Table, make_output_folder, published_rows, reason_of, summarise
from metrics.image_quality import FeaturePool
from networks import SHIPPED_WEIGHTS, DubConfig, Networks
from runtime.command_line import UserError, at_least_one, naming, write_whole

ORIGINAL = "original"
UNTOUCHED = "untouched video, new sound"
VARIANTS = {
    "reconstruction": "images: face box; LipLMD: mesh points, relative to its side; CSIM: aligned, frame by frame",
    "dubbing": "articulation, jitter: relative to the source video, which says something else",
}

Protocol = Literal["reconstruction", "dubbing", "both"]


@dataclass(frozen=True)
class Table1:
    """Compares methods by metrics. Makes the missing videos, scores all and prints the table beside the paper's."""

    videos: Path
    """Folder of original videos, for instance LRS2's main."""
    output: Path
    """Folder for the videos and for the table as Markdown and JSON."""
    clip_list: Path | None = None
    """Published list of clips to choose from, one per line; by default all videos."""
    count: int = COUNT
    """Number of clips to choose."""
    protocol: Protocol = "both"
    """reconstruction (the clip's own sound), dubbing (another clip's), or both."""
    weights: tuple[str, ...] = (f"IP-LAP={SHIPPED_WEIGHTS}",)
    """Our rows, each NAME=FOLDER of weights; table 4 has one for each variant."""
    methods: tuple[str, ...] = ()
    """Other rows, each NAME=FOLDER of videos (or FOLDER/reconstruction and FOLDER/dubbing), framed in any way."""
    baselines: bool = True
    """Add rows for the aligned nearest reference and for static lips."""
    num_references: tuple[int, ...] = (25,)
    """Number of reference images for the renderer; table 5 has a row for each number."""
    paper: Literal["LRS2", "LRS3", "none"] = "LRS2"
    """Dataset of the paper's rows; none leaves them out."""
    workers: int = 1
    """Processes that make videos."""
    device: str = "cpu"
    """cpu, cuda, mps or auto."""

    def run(self) -> None:
        """Prints and writes one table for each protocol."""
        at_least_one(workers=self.workers)
        if self.output.resolve().is_relative_to(self.videos.resolve()):
            raise UserError(
                f"--output: {self.output} lies in --videos, so its videos would count as originals; choose another"
            )
        make_output_folder(self.output)
        with naming("--videos"):
            videos = videos_by_name(self.videos)
        methods = our_methods(self)
        places = VARIANTS if self.protocol == "both" else (self.protocol,)
        plans = {place: plan_table(self, place, videos) for place in places}
        with naming("--device"):
            scorer = Scorer(self.device)
        name = type(self).__name__.lower()
        for unfinished in self.output.rglob(".*.part.mp4"):  # left by a run that was killed
            unfinished.unlink()
        for place, (originals, existing) in plans.items():
            made = make_videos(methods, originals, self.output / place, self.workers)
            rows = score_rows(existing | made, originals, scorer)
            frames = sum(clip.frames for clip in rows[0].clips)
            notes = [
                f"clips: {len(rows[0].clips)}, frames: {frames} [95 % interval over clips]; LSE: whole frames",
                VARIANTS[place],
                *scorer.missing,
            ]
            paper = published_rows(f"{name} {self.paper}, {place}")
            if paper:
                notes.append(f"(paper): {name} {self.paper} as printed, which names neither clips nor metric variants")
            Table(f"{name}, {place}", rows + paper, notes).publish(self.output)


@dataclass(frozen=True)
class Table4(Table1):
    """Ablates stage 2: weights trained without warping, without audio, and in full, NAME=FOLDER each."""

    protocol: Protocol = "reconstruction"
    baselines: bool = False


@dataclass(frozen=True)
class Table5(Table4):
    """Compares numbers of reference images."""

    num_references: tuple[int, ...] = (1, 5, 10, 25)


@dataclass(frozen=True)
class Score(Table1):
    """Scores any videos and methods, without the paper's rows."""

    protocol: Protocol = "reconstruction"


def our_methods(table: Table1) -> list[Method]:
    """Returns the rows that are made here. Raises UserError if a folder holds no weights, or two rows share a name."""
    reserved = [f"{name}=." for name in (ORIGINAL, UNTOUCHED, *BASELINES)]
    with naming("--weights, --methods"):
        parse_named((*reserved, *table.weights, *table.methods))
    methods = []
    for name, folder in parse_named(table.weights).items():
        for number in table.num_references:
            row = f"{name}, N={number}" if len(table.num_references) > 1 else name
            config = replace(
                DubConfig.for_tables(),
                device=table.device,
                num_references=number,
                track_cache=table.output / "tracks",
            )
            with naming("--weights"):  # finds a wrong folder now, not after the first hour
                Networks.from_weights(folder, replace(config, device="cpu"))
            methods.append(Method(row, folder, config))
    if table.baselines and methods:
        methods += [replace(methods[0], name=kind, kind=kind) for kind in BASELINES]
    return methods


def find_others(table: Table1, place: str, clips: list[str]) -> Rows:
    """Finds the videos of other methods.

    Raises UserError if a method has no such video, or one folder for two protocols.
    """
    rows = {}
    for method, folder in parse_named(table.methods).items():
        with naming(f"--methods {method}"):
            own = folder / place
            if not own.is_dir():
                if table.protocol == "both":
                    raise UserError(f"{own} is not a folder; create it, or choose one --protocol")
                own = folder
            videos = videos_by_name(own)
            rows[method] = {clip: videos[name] for clip, name in match(clips, videos, own).items()}
    return rows


def plan_table(table: Table1, place: str, videos: dict[str, Path]) -> tuple[Originals, Rows]:
    """Chooses clips and sounds, and writes a list of them. Reports a user's mistakes before any video is made.

    Args:
        table: the command.
        place: reconstruction or dubbing.
        videos: clip -> video, all in the folder.

    Returns:
        The chosen clips, and the rows whose videos already exist.
    """
    names = videos
    if table.clip_list:
        with naming("--clip-list"):
            names = read_list(table.clip_list)
    clips = choose_clips(names, table.count)
    sounds = {clip: clip for clip in clips}
    original_row = ORIGINAL
    if place == "dubbing":
        sounds = exchange_sounds(clips)
        original_row = UNTOUCHED
    lines = [f"{quoted(clip)} {quoted(sound)}\n" for clip, sound in sounds.items()]
    write_whole(table.output / f"{place}_pairs.txt", "".join(lines))
    paths = {clip: table.videos / clip for clip in clips}  # a missing video fails later, with this path as the reason
    for clip, name in match(clips, videos, "--clip-list").items():
        paths[clip] = videos[name]
    originals = {clip: (paths[clip], paths[sound]) for clip, sound in sounds.items()}
    return originals, {original_row: {**paths}, **find_others(table, place, clips)}


def score_rows(rows: Rows, originals: Originals, scorer: Scorer) -> list[Row]:
    """Scores all methods on one clip after the other, so that each original is tracked only once."""
    scores = {row: [] for row in rows}
    pools = {row: FeaturePool() for row in rows}
    for clip, (video, sound) in tqdm(originals.items(), "scoring", unit="clip"):
        try:
            original = scorer.open(video, sound)
        except Exception as error:
            for clips in scores.values():
                clips.append(ClipScore(clip, reason=reason_of(error)))
            continue
        for row, videos in rows.items():
            scores[row].append(scorer.score(clip, original, videos.get(clip, "no video of that name"), pools[row]))
    return [summarise(row, clips, pools[row].fid()) for row, clips in scores.items()]
