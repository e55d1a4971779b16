"""How good are these weights? Each stage beside baselines that need no network, from the clip cache alone.

Stage 1: lips, against static lips and a ridge regression; and with the pose of another moment, as in dubbing. Stage 2:
the face crop, against the aligned nearest reference, with true, predicted and static landmarks.
This is quick enough to choose between training runs; the paper's tables score finished videos.
"""

import sys
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from tqdm import tqdm

from checkpoints import registry
from datasets.clip_cache import Clip, ClipCache
from datasets.splits import SplitConfig, match, read_list, split
from evaluation import baselines
from evaluation.protocol import parse_named
from evaluation.scoring import MAX_REAL_MOUTHS, evenly_spaced
from evaluation.tables import ClipScore, Row, Table, bootstrap, make_output_folder, published_rows, summarise
from face.compositing import contour
from face.crop import SIZE, lower_half, to_frame
from face.landmarks import CONTENT, LIP_SLICE, with_content
from face.references import MIDDLE, spread_over_openness
from face.tracking import fill_gaps
from media.audio import FPS, mel_windows
from media.timing import window_frames
from metrics.image_quality import LPIPS
from metrics.lip_motion import FaceSequence, landmark_distance, motion_scores, nan_mean, silent_frames
from metrics.mouth import RealMouths, mouth_crops
from metrics.pairs import PairScorer
from networks import (
    NUM_LANDMARK_REFERENCES,
    SHIPPED_WEIGHTS,
    DubConfig,
    LandmarkPredictor,
    Networks,
    load_landmark_generator,
    to_tensor,
)
from runtime.command_line import UserError, at_least, naming

NOTES = {
    "stage 1": f"LipLMD: 40 mesh points over the crop's side; Landmark Error: 57 points, pixels of the {SIZE} crop",
    "stage 2": "face crop; lower half: all of it; pasted: the lower half inside the face's contour, the rest true",
}
Scores = dict[str, dict[str, float]]  # row -> column -> value
Landmarks = dict[str, np.ndarray]  # row -> landmarks in frame (F, 131, 2)


@dataclass(frozen=True)
class ValidateConfig:
    """Scores weights on clips of a cache, beside baselines without a network."""

    cache: Path
    """Clip cache, see python -m preprocess."""
    weights: Path = SHIPPED_WEIGHTS
    """Folder with landmark_generator.safetensors and, but for --stage 1, renderer.safetensors."""
    stage: Literal["1", "2", "both"] = "both"
    """1 is landmarks only."""
    frames: int = 40
    """Frames of each clip that stage 2 draws, evenly spread; references themselves are never scored."""
    num_references: int = DubConfig.num_references
    """Reference images of the renderer (the baseline chooses from 25)."""
    device: str = "auto"
    """cpu, cuda, mps or auto."""
    split: tyro.conf.OmitArgPrefixes[SplitConfig] = field(default_factory=SplitConfig)
    """Which clips to score: those of --val-list (speaker=NAME after a clip groups it by person), or those that a
    training with the same flags validates on. With --train-list, a ridge regression learns from its clips."""
    output: Path | None = None
    """Folder for the tables as Markdown and JSON, with the values of every clip."""


class ClipFaces:
    """The F frames of a clip that show a face, and what stage 1 gets of them."""

    def __init__(self, clip: Clip) -> None:
        self.clip = clip
        self.frames = np.flatnonzero(clip.found)  # (F,) indices into the clip
        self.true = FaceSequence(clip.landmarks_in_frame[self.frames], clip.boxes[self.frames])
        self.openness = self.true.openness(MIDDLE)  # (F,)
        self.references = spread_over_openness(self.openness, NUM_LANDMARK_REFERENCES)  # (15,) positions in `frames`

    def sequence(self, landmarks_in_frame: np.ndarray) -> FaceSequence:
        """Other landmarks (F, 131, 2) in the boxes of these faces."""
        return FaceSequence(landmarks_in_frame, self.true.boxes)

    def crops(self, positions: np.ndarray) -> np.ndarray:
        """True face crops (n, S, S, 3) uint8 of some of the frames."""
        return np.stack([self.clip.face(int(frame)) for frame in self.frames[positions]])

    def error(self, landmarks_in_frame: np.ndarray, part: slice) -> float:
        """Mean distance of a part of landmarks (F, 131, 2) from the true ones, relative to the crop's side."""
        predicted = self.sequence(landmarks_in_frame).landmarks_in_crop
        return nan_mean(landmark_distance(predicted[:, part], self.true.landmarks_in_crop[:, part]))

    def static(self) -> np.ndarray:
        """Landmarks in frame (F, 131, 2) whose lips never move."""
        landmarks = self.true.landmarks_in_frame
        return baselines.static_lips(landmarks, landmarks[self.references])

    def example(self) -> tuple[np.ndarray, np.ndarray]:
        """Inputs (F, D) and outputs (F, 57 * 2) of the ridge regression."""
        change = self.true.landmarks_in_crop - self.sequence(self.static()).landmarks_in_crop
        content = change[:, CONTENT].reshape(len(change), -1)
        return baselines.sound_context(self.clip.mel, self.frames), content


def predict(
    predictor: LandmarkPredictor, faces: ClipFaces, other_pose: bool = False, mel: np.ndarray | None = None
) -> np.ndarray:
    """Predicts landmarks in frame (F, 131, 2) as in dubbing, from the clip's own sound or `mel` (80, C).

    With `other_pose` the head moves as at another moment, as in dubbing, so that the pose does not give the mouth away;
    lips and jaws are then moved to the frame's pose.
    """
    clip = faces.clip
    landmarks = clip.crop_landmarks(fill_gaps(clip.found))
    own = landmarks[faces.frames]
    pose = baselines.half_a_clip_later(landmarks) if other_pose else landmarks
    predicted = predictor.predict_landmarks(pose, own[faces.references], clip.mel if mel is None else mel)
    predicted = predicted[faces.frames]
    if other_pose:
        predicted = with_content(own, baselines.transfer_content(predicted, own))
    return to_frame(predicted, faces.true.boxes)


def predict_all(predictor: LandmarkPredictor, faces: ClipFaces, ridge: baselines.RidgeRegression | None) -> Landmarks:
    """The landmarks of every row of stage 1's table."""
    true = faces.true.landmarks_in_frame
    static = faces.static()
    rows = {
        "ours": predict(predictor, faces),
        "ours, pose of another moment": predict(predictor, faces, other_pose=True),
        "static lips": static,
    }
    if ridge:
        inputs, _ = faces.example()
        change = ridge(inputs).reshape(len(static), -1, 2)
        content = faces.sequence(static).landmarks_in_crop[:, CONTENT] + change
        rows["ridge regression"] = with_content(static, to_frame(content, faces.true.boxes))
    rows["original"] = true
    return rows


def score_lips(faces: ClipFaces, rows: Landmarks) -> Scores:
    """Stage 1: every row's landmarks against the true ones."""
    silent = silent_frames(faces.clip.mel, faces.clip.num_frames)[faces.frames]
    scores = {}
    for row, landmarks in rows.items():
        scores[row] = motion_scores(faces.sequence(landmarks), faces.true, silent)
        scores[row]["LipLMD"] = faces.error(landmarks, LIP_SLICE)
        scores[row]["Landmark Error"] = faces.error(landmarks, CONTENT) * SIZE
    return scores


class FaceScorer:
    """Stage 2: draws face crops of a clip and scores them against the true ones.

    Scored are the whole crop, its lower half, and what dubbing pastes: the lower half inside the face's soft contour
    (around the face the crop shows a background that does not move with it).
    """

    def __init__(self, networks: Networks, num_frames: int, lpips: dict[str, LPIPS]) -> None:
        self.networks = networks
        self.num_frames = num_frames
        self.lpips = lpips
        nearest = baselines.NearestReference(networks.landmark_generator, networks.renderer, networks.config)
        self.drawers: dict[str, Networks] = {"nearest reference": nearest, "ours": networks}

    def score(self, faces: ClipFaces, rows: Landmarks) -> Scores:
        """Scores every drawer with every row's landmarks; empty if all frames serve as references."""
        true = faces.true.landmarks_in_crop
        references = {}
        others = np.arange(len(faces.frames))
        for name, drawer in self.drawers.items():
            chosen = spread_over_openness(faces.openness, drawer.num_candidates)
            others = np.setdiff1d(others, chosen)
            crops = faces.crops(chosen)
            references[name] = drawer.encode_references(crops, true[chosen], faces.true.boxes[chosen])
        if not len(others):
            return {}
        scored = others[evenly_spaced(len(others), self.num_frames)]
        mouths = self.real_mouths(faces)
        scorers: dict[str, PairScorer] = defaultdict(lambda: PairScorer(self.lpips, mouths))
        for batch in np.array_split(scored, -(-len(scored) // self.networks.config.batch_size)):
            crops = faces.crops(batch)
            mel = mel_windows(faces.clip.mel, faces.frames[batch])
            for row, landmarks in rows.items():
                drawn = faces.sequence(landmarks).landmarks_in_crop
                sketches = np.stack([self.sketches(faces, drawn, i) for i in batch])
                mask = self.paste_mask(true[batch], drawn[batch])
                for name, drawer in self.drawers.items():
                    images, _ = drawer.draw_faces(crops, drawn[batch], sketches, references[name], mel)
                    scorer = scorers[f"{name}, {row} landmarks"]
                    self.compare(images, crops, mask, scorer)
                    pictures = (images * 255).round().astype(np.uint8)
                    scorer.add_mouths(pictures, drawn[batch] * self.networks.size)
        return {row: scorer.scores() for row, scorer in scorers.items()}

    def real_mouths(self, faces: ClipFaces) -> RealMouths | None:
        """The true mouths of a clip, if there is LPIPS to compare them."""
        if not self.lpips:
            return None
        positions = evenly_spaced(len(faces.frames), MAX_REAL_MOUTHS)
        landmarks = faces.true.landmarks_in_crop[positions] * self.networks.size
        crops = mouth_crops(faces.crops(positions), landmarks)
        return RealMouths(crops, faces.frames[positions], self.lpips["LPIPS"])

    def sketches(self, faces: ClipFaces, landmarks_in_crop: np.ndarray, position: int) -> np.ndarray:
        """Sketches (T, S, S, 3) of the window around a frame; frames without a face show the nearest with one."""
        clip = faces.clip
        window = window_frames(clip.num_frames, self.networks.renderer.config.num_frames, FPS)[faces.frames[position]]
        positions = np.searchsorted(faces.frames, fill_gaps(clip.found)[window])
        return np.stack([self.networks.sketch(landmarks_in_crop[i], faces.true.boxes[i]) for i in positions])

    def paste_mask(self, true: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        """Opacity (n, S, S) of what dubbing pastes, from true and drawn landmarks in crop (n, 131, 2)."""
        size = self.networks.size
        masks = np.stack([contour(*pair, (size, size)) for pair in zip(true, drawn, strict=True)])
        masks[:, : lower_half(size).start] = 0
        return masks

    def compare(self, images: np.ndarray, crops: np.ndarray, mask: np.ndarray, scorer: PairScorer) -> None:
        """Scores drawn faces (n, S, S, 3) in [0, 1] against true crops (n, S, S, 3) in 0..255."""
        output = torch.from_numpy(images).permute(0, 3, 1, 2).to(self.networks.device)
        target = to_tensor(crops).to(output)
        opacity = torch.from_numpy(mask)[:, None].to(output)
        pasted = target + opacity * (output - target)
        lower = lower_half(self.networks.size)
        scorer.add(output, target)
        scorer.add(output[:, :, lower], target[:, :, lower], ("PSNR",), " lower half")
        scorer.add(pasted, target, ("PSNR", "LPIPS"), " pasted")


def mean_over_groups(clips: dict[str, Scores], groups: dict[str, str]) -> list[Row]:
    """Every row's mean over groups of the mean over their clips, with its interval; NaN is ignored."""
    rows = []
    for name in dict.fromkeys(row for scores in clips.values() for row in scores):
        scores = [ClipScore(clip, rows_of_clip[name]) for clip, rows_of_clip in clips.items() if name in rows_of_clip]
        cells = {}
        for column in dict.fromkeys(column for score in scores for column in score.values):
            values_of_group = defaultdict(list)
            for score in scores:
                values_of_group[groups[score.clip]].append(score.values.get(column, np.nan))
            cells[column] = bootstrap(np.array([nan_mean(values) for values in values_of_group.values()]))
        rows.append(Row(name, cells, scores))
    return rows


def find_lpips(device: torch.device) -> dict[str, LPIPS]:
    """LPIPS by its column, or nothing if its weights are missing, which is said."""
    path = registry.find("lpips_alex")
    if path is None:
        print(registry.missing("LPIPS", "lpips_alex"), file=sys.stderr)
        return {}
    return {"LPIPS": LPIPS("alex", path).to(device)}


def validate(config: ValidateConfig) -> None:
    at_least(1, frames=config.frames)
    make_output_folder(config.output)
    scorer = None
    crop_size = None  # stage 1 fits any
    dubbing = replace(DubConfig.for_tables(), device=config.device, num_references=config.num_references)
    with naming("--weights"):
        if config.stage == "1":
            predictor = LandmarkPredictor(load_landmark_generator(config.weights), config.device)
        else:
            predictor = networks = Networks.from_weights(config.weights, dubbing)
            crop_size = networks.size
            scorer = FaceScorer(networks, config.frames, find_lpips(networks.device))
    cache = ClipCache(config.cache, crop_size)
    parts = split(cache.names, config.split)
    if not config.split.val_list:
        print(f"no --val-list: {parts}, as in a training with the same flags")
    if not parts.val:
        raise UserError(f"--cache: no clip of {config.cache} is for validation; name some in --val-list")
    persons = {name: parts.speakers[name] for name in parts.val}
    ridge = None
    if config.split.train_list and config.stage != "2":
        training = (ClipFaces(cache.open(name)) for name in parts.train)
        ridge = baselines.RidgeRegression(faces.example() for faces in training if len(faces.frames))
    stages: dict[str, dict[str, Scores]] = defaultdict(dict)
    left_out = []
    for name in persons:
        faces = ClipFaces(cache.open(name))
        if len(faces.frames) < 2:
            left_out.append(f"{name}: fewer than two frames with a face, left out")
            continue
        rows = predict_all(predictor, faces, ridge)
        if config.stage != "2":
            stages["stage 1"][name] = score_lips(faces, rows)
        if scorer:
            drawn = {"true": rows["original"], "predicted": rows["ours"], "static": rows["static lips"]}
            scores = scorer.score(faces, drawn)
            if scores:
                stages["stage 2"][name] = scores
            else:
                left_out.append(f"{name}: all its frames serve as references, left out of stage 2")
    if not stages:
        raise UserError(f"--cache: no clip for validation can be scored ({left_out[0]}); name others in --val-list")
    for stage, clips in stages.items():
        num_persons = len({persons[name] for name in clips})
        notes = [
            f"weights {config.weights}; clips: {len(clips)}, persons: {num_persons}; "
            "means over persons of the means over their clips [95 % interval over persons]",
            NOTES[stage],
            *left_out,
        ]
        table = Table(stage, mean_over_groups(clips, persons), notes)
        table.publish(config.output, f"{stage.replace(' ', '_')}_over_persons")


@dataclass(frozen=True)
class Table3Config:
    """Ablation of stage 1 on the clips of a cache: error of the 57 predicted points, in pixels of the 128 crop."""

    cache: Path
    """Clip cache, see python -m preprocess."""
    clip_list: Path
    """Clips to score, one per line."""
    weights: tuple[str, ...]
    """Rows, each NAME=FOLDER of weights: w/ LSTM=... and w/ Transformer=..."""
    output: Path
    """Folder for the table as Markdown and JSON."""
    device: str = "cpu"
    """cpu, cuda, mps or auto."""


def table3(config: Table3Config) -> None:
    make_output_folder(config.output)
    cache = ClipCache(config.cache, None)
    with naming("--clip-list"):
        entries = read_list(config.clip_list)
    names = match(entries, cache.names, config.clip_list).values()
    with naming("--weights"):
        folders = parse_named(config.weights)
    rows = []
    for row, folder in folders.items():
        with naming("--weights"):
            predictor = LandmarkPredictor(load_landmark_generator(folder), config.device)
        clips = []
        for name in tqdm(names, row):
            faces = ClipFaces(cache.open(name))
            score = ClipScore(name, frames=len(faces.frames))
            if score.frames:
                score.values["Landmark Error"] = faces.error(predict(predictor, faces), CONTENT) * SIZE
            else:
                score.reason = "no face"
            clips.append(score)
        rows.append(summarise(row, clips))
    notes = ["mean distance of 17 jaw and 40 lip points in pixels of the 128 crop; the paper does not state its unit"]
    Table("table3", [*rows, *published_rows("table3")], notes).publish(config.output, "table3")
