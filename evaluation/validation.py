"""Scores weights on a clip cache: each stage beside baselines that need no network.

Stage 1 is compared with static lips, and also given the pose of another moment, as in dubbing. Stage 2 draws face crops
from true, predicted and static landmarks, and is compared with the aligned nearest reference. This is quick enough to
choose between training runs; the paper's tables score finished videos.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from numpy import ndarray
from tqdm import tqdm

from datasets.clip_cache import Clip, ClipCache
from datasets.splits import SplitConfig, split
from evaluation.baselines import NearestReference, static_lips, transfer_content
from evaluation.protocol import parse_named
from evaluation.scoring import load_networks
from evaluation.tables import ClipScore, Row, Table, make_output_folder, published_rows, summarise
from face.compositing import contour
from face.crop import SIZE, lower_half, to_frame
from face.landmarks import CONTENT, MIDDLE_LIPS, with_content
from face.references import spread_over_openness
from face.tracking import fill_gaps
from media.audio import FPS, mel_windows
from media.timing import evenly_spaced, window_frames
from metrics.lip_motion import FaceSequence, landmark_distance, motion_scores, nan_mean, silent_frames
from metrics.mouth import RealMouths
from metrics.pairs import PairScorer
from networks import (
    NUM_LANDMARK_REFERENCES,
    SHIPPED_WEIGHTS,
    DubConfig,
    LandmarkPredictor,
    Networks,
    batches,
    load_landmark_generator,
    to_tensor,
)
from runtime.command_line import UserError, at_least_one, naming

NOTES = {
    "stage 1": f"LipLMD: 40 mesh points over the crop's side; Landmark Error: 57 points, pixels of the {SIZE} crop",
    "stage 2": "whole face crop; pasted: drawn in the lower half inside the face's contour, true elsewhere",
}
Scores = dict[str, dict[str, float]]  # row -> column -> value


@dataclass(frozen=True)
class Validate:
    """Scores weights on clips of a cache, beside baselines without a network."""

    cache: Path
    """Clip cache, see python -m preprocess."""
    weights: Path = SHIPPED_WEIGHTS
    """Folder with landmark_generator.safetensors and, unless --stage is 1, renderer.safetensors."""
    stage: Literal["1", "2", "both"] = "both"
    """Stage to score; 1 is landmarks only."""
    frames: int = 40
    """Frames of each clip that stage 2 draws, evenly spread; references are never scored."""
    device: str = "auto"
    """cpu, cuda, mps or auto."""
    split: tyro.conf.OmitArgPrefixes[SplitConfig] = field(default_factory=SplitConfig)
    """Clips to score: those of --val-list, or those that a training run with the same flags validates on."""
    output: Path | None = None
    """Folder for the tables as Markdown and JSON, with the values of every clip."""

    def run(self) -> None:
        """Prints and writes a table for each stage."""
        at_least_one(frames=self.frames)
        make_output_folder(self.output)
        networks = None
        with naming("--weights"):
            if self.stage == "1":
                predictor = LandmarkPredictor(load_landmark_generator(self.weights), self.device)
            else:
                config = replace(DubConfig.for_tables(), device=self.device)
                predictor = networks = Networks.from_weights(self.weights, config)
        cache = ClipCache(self.cache, networks.size if networks else None)  # stage 1 fits any
        scorers = {}
        if self.stage != "2":
            methods = {
                "ours": partial(predict, predictor),
                "ours, pose of another moment": partial(predict, predictor, other_pose=True),
                "static lips": ClipFaces.static,
                "original": lambda faces: faces.true,
            }
            scorers["stage 1"] = partial(score_lips, methods)
        if networks:
            metrics, _ = load_networks(["LPIPS"], networks.device)
            scorers["stage 2"] = partial(score_faces, networks, metrics, self.frames)
        parts = split(cache.names, self.split)
        if not self.split.val_list:
            print(f"no --val-list: {parts}, as in a training run with the same flags")
        for stage, score in scorers.items():
            rows, left_out = score_clips(cache, parts.val, score, parts.speakers)
            if not rows:
                reason = left_out[0] if left_out else f"{self.cache} has none"
                raise UserError(f"--cache: no clip for validation can be scored ({reason}); name others in --val-list")
            persons = {parts.speakers[clip.clip] for clip in rows[0].clips}
            notes = [
                f"weights {self.weights}; clips: {len(rows[0].clips)}, persons: {len(persons)}; "
                "means over persons of the means over their clips [95 % interval over persons]",
                NOTES[stage],
                *left_out,
            ]
            Table(f"{stage}, over persons", rows, notes).publish(self.output)


@dataclass(frozen=True)
class Table3:
    """Compares LSTM and Transformer in stage 1, on the clips of a cache."""

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

    def run(self) -> None:
        """Prints and writes the table."""
        make_output_folder(self.output)
        cache = ClipCache(self.cache, None)
        with naming("--clip-list"):
            names = split(cache.names, SplitConfig(val_list=self.clip_list)).val
        methods = {}
        with naming("--weights"):
            for row, folder in parse_named(self.weights).items():
                predictor = LandmarkPredictor(load_landmark_generator(folder), self.device)
                methods[row] = partial(predict, predictor)
        rows, left_out = score_clips(cache, names, partial(score_lips, methods))
        notes = [NOTES["stage 1"], "the paper does not state its unit", *left_out]
        Table("table3", [*rows, *published_rows("table3")], notes).publish(self.output)


class ClipFaces:
    """The F frames of a clip that show a face, and the references that stage 1 takes from them."""

    def __init__(self, clip: Clip):
        """Raises UserError if fewer than two frames show a face."""
        if clip.num_found < 2:
            raise UserError("fewer than two frames with a face")
        self.clip = clip
        self.frames = np.flatnonzero(clip.found)  # (F,) indices into the clip
        self.true = FaceSequence(clip.landmarks_in_frame[self.frames], clip.boxes[self.frames])
        self.openness = self.true.openness(MIDDLE_LIPS)  # (F,)
        self.references = spread_over_openness(self.openness, NUM_LANDMARK_REFERENCES)  # (15,) positions in `frames`

    def crops(self, frames: ndarray) -> ndarray:
        """Returns the true face crops (n, S, S, 3) uint8 of frames (n,) of the clip."""
        return np.stack([self.clip.face(frame) for frame in frames])

    def static(self) -> FaceSequence:
        """Returns the faces with a mouth that never moves."""
        landmarks = self.true.landmarks_in_frame
        return self.true._replace(landmarks_in_frame=static_lips(landmarks, landmarks[self.references]))


def score_clips(
    cache: ClipCache,
    names: Iterable[str],
    score: Callable[[ClipFaces], Scores],
    persons: Mapping[str, str] | None = None,
) -> tuple[list[Row], list[str]]:
    """Returns the rows of a table, see `summarise`, and a line for each clip that cannot be scored."""
    scores = defaultdict(list)
    left_out = []
    for name in tqdm(names, "scoring", unit="clip"):
        try:
            for row, values in score(ClipFaces(cache.open(name))).items():
                scores[row].append(ClipScore(name, values))
        except UserError as error:
            left_out.append(f"{name}: {error}, left out")
    return [summarise(row, clips, persons=persons) for row, clips in scores.items()], left_out


def predict(
    predictor: LandmarkPredictor, faces: ClipFaces, other_pose: bool = False, mel: ndarray | None = None
) -> FaceSequence:
    """Predicts lips and jaws as in dubbing, from the clip's own sound or `mel` (80, C).

    With `other_pose`, the network gets the poses of another moment, as in dubbing, so that they do not give the mouth
    away. Lips and jaws are then moved to the frame's pose.
    """
    clip = faces.clip
    landmarks = clip.crop_landmarks(fill_gaps(clip.found))
    own = faces.true.landmarks_in_crop
    if other_pose:
        landmarks = np.roll(landmarks, -(len(landmarks) // 2), axis=0)
    predicted = predictor.predict_landmarks(landmarks, own[faces.references], clip.mel if mel is None else mel)
    predicted = predicted[faces.frames]
    if other_pose:
        content = [transfer_content(*pair) for pair in zip(predicted, own, strict=True)]
        predicted = with_content(own, np.stack(content))
    return FaceSequence(to_frame(predicted, faces.true.boxes), faces.true.boxes)


def score_lips(methods: dict[str, Callable[[ClipFaces], FaceSequence]], faces: ClipFaces) -> Scores:
    """Stage 1: scores the lips and jaws of each method (row -> function) against the true ones."""
    silent = silent_frames(faces.clip.mel, faces.clip.num_frames)[faces.frames]
    true = faces.true
    scores = {}
    for row, method in methods.items():
        face = method(faces)
        error = landmark_distance(face.landmarks_in_crop[:, CONTENT], true.landmarks_in_crop[:, CONTENT])
        scores[row] = motion_scores(face, true, silent) | {"Landmark Error": SIZE * nan_mean(error)}
    return scores


def score_faces(networks: Networks, metrics: dict[str, Any], num_frames: int, faces: ClipFaces) -> Scores:
    """Stage 2: draws face crops from true, predicted and static landmarks, and scores them against the true crops.

    Two areas are scored: the whole crop, and what dubbing pastes, which is the lower half inside the face's soft
    contour. (Outside the face, the crop shows background that does not move with it.)

    Args:
        networks: networks to draw with; their nearest reference frame is scored too.
        metrics: "LPIPS" -> network, if it is available.
        num_frames: the largest number of frames to draw.
        faces: faces of the clip.

    Raises:
        UserError: all frames serve as references.
    """
    nearest = NearestReference(networks.landmark_generator, networks.renderer, networks.config)
    clip = faces.clip
    size = networks.size
    true = faces.true.landmarks_in_crop
    chosen = spread_over_openness(faces.openness, networks.num_candidates)
    references = networks.encode_references(faces.crops(faces.frames[chosen]), true[chosen], faces.true.boxes[chosen])
    positions = np.setdiff1d(np.arange(len(true)), chosen)
    if not len(positions):
        raise UserError("all its frames serve as references")
    positions = positions[evenly_spaced(len(positions), num_frames)]
    windows = window_frames(clip.num_frames, networks.renderer.config.num_frames, FPS)[faces.frames]
    windows = np.searchsorted(faces.frames, fill_gaps(clip.found)[windows])  # (F, T), positions of the nearest faces
    mouths = RealMouths.read(faces.frames, true * size, faces.crops, metrics.get("LPIPS"))
    rows = {"true": faces.true, "predicted": predict(networks, faces), "static": faces.static()}
    scorers = defaultdict(lambda: PairScorer(metrics, mouths))
    for batch in batches(positions, networks.config.batch_size):
        crops = faces.crops(faces.frames[batch])
        mel = mel_windows(clip.mel, faces.frames[batch])
        target = to_tensor(crops).to(networks.device)
        for row, face in rows.items():
            drawn = face.landmarks_in_crop
            sketches = networks.draw_sketches(drawn, face.boxes, windows[batch])
            masks = [contour(*pair, (size, size)) for pair in zip(true[batch], drawn[batch], strict=True)]
            opacity = torch.from_numpy(np.stack(masks))[:, None].to(target)  # (B, 1, S, S), of what dubbing pastes
            opacity[:, :, : lower_half(size).start] = 0
            for name, drawer in (("nearest reference", nearest), ("ours", networks)):
                images, _ = drawer.draw_faces(crops, drawn[batch], sketches, references, mel)
                pixels = 255 * images
                output = to_tensor(pixels).to(target)
                scorer = scorers[f"{name}, {row} landmarks"]
                scorer.add(output, target)
                scorer.add(target + opacity * (output - target), target, " pasted")
                scorer.add_mouths(pixels.round().astype(np.uint8), drawn[batch] * size)
    return {row: scorer.scores() for row, scorer in scorers.items()}
