"""Scores one video against its original, frame by frame, without keeping frames.

Frames and samples are compared, never a re-encoded file. Nothing is dropped silently: frames without a face are
counted, a clip that cannot be scored has a reason, and a column whose network is missing is named.
"""

from collections import defaultdict
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from torch import Tensor

from checkpoints import registry
from evaluation.tables import ClipScore, reason_of
from face.crop import crop_face, overlap, to_crop
from face.landmarks import LIP_SLICE
from face.tracking import FaceTrack, fill_gaps, track_faces
from media.audio import FPS, frames_for_samples, log_mel
from media.video import Video
from metrics import identity, landmarks68, syncnet
from metrics.image_quality import LPIPS, FeaturePool, Inception
from metrics.lip_motion import FaceSequence, landmark_distance, motion_scores, nan_mean, silent_frames
from metrics.mouth import RealMouths, mouth_crops
from metrics.pairs import PairScorer
from networks import to_tensor
from runtime.command_line import UserError, naming
from runtime.device import pick_device

SAME_FRAMING = 0.7  # overlap of the face boxes of output and original above which both show the face in one place
MAX_REAL_MOUTHS = 250  # of a video, evenly spaced, with which drawn mouths are compared
Features = dict[str, list[np.ndarray]]  # column -> features of each frame, for metrics of all frames of the clip


@dataclass(frozen=True)
class ScoreConfig:
    """How to score. The defaults are those of the tables."""

    points: Literal["mesh", "68"] = "mesh"
    """LipLMD: the face mesh's 40 lip points, or face-alignment's 20 of 68 (which needs two weight files)."""
    csim: Literal["aligned", "resized"] = "aligned"
    """CSIM: faces aligned by five points, or crops only resized."""
    sync: Literal["lrs", "pipeline"] = "lrs"
    """LSE: the whole frame (usual for LRS2), or a crop around the tracked face (at least 50 frames)."""
    common: bool = False
    """Score the common part of videos with different numbers of frames instead of failing them."""
    device: str = "cpu"
    """cpu, cuda, mps or auto."""


class Original(NamedTuple):
    """A real video and its tracked face, shared by all methods."""

    path: Path
    track: FaceTrack
    mouths: RealMouths | None  # None without LPIPS or without a face


class Pools(NamedTuple):
    """FID's features of all frames of a method and of their originals."""

    output: FeaturePool
    original: FeaturePool


@dataclass
class FacePair:
    """The faces of output and original in the frames that are scored."""

    found: np.ndarray  # (F,) whether output and original (in dubbing: the output) show a face
    output: FaceSequence
    original: FaceSequence  # in dubbing it may have another number of frames
    compare: bool  # False in dubbing, which has no ground truth


class Scorer:
    """The available networks, loaded once; `missing` says which columns are left out and why."""

    def __init__(self, config: ScoreConfig) -> None:
        self.config = config
        with naming("--score.device"):
            self.device = str(pick_device(config.device))
        self.missing: list[str] = []
        self.lpips: dict[str, LPIPS] = {}
        for column, network in (("LPIPS", "alex"), ("LPIPS vgg", "vgg")):
            path = self._find(column, f"lpips_{network}")
            if path:
                self.lpips[column] = LPIPS(network, path).to(self.device)
        inception = self._find("FID", "inception")
        self.inception = Inception(inception).to(self.device) if inception else None
        arcface = self._find("CSIM", "arcface")
        self.embedder = identity.FaceEmbedder(arcface) if arcface else None
        sync = self._find("LSE-C", "syncnet")
        self.syncnet = syncnet.load(sync, self.device) if sync else None
        self.landmarks68 = None
        if config.points == "68":
            fan = self._find("LipLMD", "fan")
            s3fd = self._find("LipLMD", "s3fd")
            if fan and s3fd:
                self.landmarks68 = landmarks68.Landmarks68(fan, s3fd, self.device)

    def _find(self, column: str, key: str) -> Path | None:
        path = registry.find(key)
        if path is None:
            self.missing.append(registry.missing(column, key))
        return path

    def open(self, path: Path) -> Original:
        """Tracks the face of a real video and describes its mouths."""
        track = track_faces(Video(path))
        frames = np.flatnonzero(track.found)
        if "LPIPS" not in self.lpips or not len(frames):
            return Original(path, track, None)
        frames = frames[evenly_spaced(len(frames), MAX_REAL_MOUTHS)]
        crops = mouth_crops(Video(path).frames(frames), track.landmarks_in_frame[frames])
        return Original(path, track, RealMouths(crops, frames, self.lpips["LPIPS"]))

    def score(
        self, clip: str, original: Original, output: Path, wav: np.ndarray, pools: Pools, compare: bool = True
    ) -> ClipScore:
        """Scores `output` against `original` and against the sound `wav` (S,).

        The output is read twice, because boxes are smoothed over later frames.

        Args:
            clip: its name in the tables.
            original: from `open`, the video that `output` is meant to equal or, without `compare`, only to resemble.
            output: a video of any framing. If its face is in another place, its own face boxes are used.
            wav: 16 kHz, the sound that the mouth follows.
            pools: of the method; the clip's features are added.
            compare: False in dubbing, where there is no ground truth: only sound and motion are scored.
        """
        result = ClipScore(clip, expected=frames_for_samples(len(wav)))
        try:
            track = original.track if output == original.path else track_faces(Video(output))
            result.produced = min(len(track.found), result.expected)
            rate = Video(output, fps=None).fps
            if abs(rate - FPS) > 0.01:
                result.add_note(f"{rate:.4g} frames a second, read at {FPS}")
            faces = pair_faces(result, track, original.track, compare, self.config.common)
            scores = _ClipScores(self, faces, track, original.mouths, wav)
            originals = Video(original.path) if compare else repeat(None)
            for frame in zip(range(len(faces.found)), Video(output), originals, strict=False):
                scores.add(*frame)
            scores.finish(result, pools)
        except Exception as error:
            result.reason = reason_of(error)
        return result


def evenly_spaced(count: int, most: int) -> np.ndarray:
    """Positions of at most `most` of `count` things."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(int))


def pair_faces(result: ClipScore, output: FaceTrack, original: FaceTrack, compare: bool, common: bool) -> FacePair:
    """Pairs the faces of two tracks, and notes in `result` whatever is special about them.

    Raises UserError if no frame can be scored, or, unless `common`, if the numbers of frames differ.
    """
    num_frames = len(output.found)
    num_originals = len(original.found)
    if not compare:
        shared = slice(None)
        found = output.found
    else:
        if num_frames != num_originals:
            if not common:
                message = f"{num_frames} frames, the original has {num_originals}"
                raise UserError(f"{message} (--score.common scores the common part)")
            result.add_note(f"common part of {num_frames} and {num_originals} frames")
        shared = slice(min(num_frames, num_originals))
        found = output.found[shared] & original.found[shared]
    result.frames = int(found.sum())
    result.faceless = len(found) - result.frames
    if not result.frames:
        raise UserError(f"no frame shows a face{' in both output and original' if compare else ''}")
    output_faces = FaceSequence(output.landmarks_in_frame[shared], output.boxes[shared])
    original_faces = FaceSequence(original.landmarks_in_frame[shared], original.boxes[shared])
    if compare:
        overlaps = overlap(output_faces.boxes[found].astype(float), original_faces.boxes[found].astype(float))
        if output.frame_size == original.frame_size and np.median(overlaps) >= SAME_FRAMING:
            output_faces = output_faces._replace(boxes=original_faces.boxes)
        else:
            width, height = output.frame_size
            result.add_note(f"framed otherwise, {width} x {height}, compared by its own face boxes")
    return FacePair(found, output_faces, original_faces, compare)


class _ClipScores:
    """Accumulates the scores of one clip."""

    def __init__(
        self, scorer: Scorer, faces: FacePair, output: FaceTrack, mouths: RealMouths | None, wav: np.ndarray
    ) -> None:
        self.scorer = scorer
        self.config = scorer.config
        self.faces = faces
        self.wav = wav
        self.pairs = PairScorer(scorer.lpips, mouths)
        self.output_features: Features = defaultdict(list)
        self.original_features: Features = defaultdict(list)
        self.sync = syncnet.SyncScorer(scorer.syncnet, wav) if scorer.syncnet else None
        self.sync_boxes = output.boxes[fill_gaps(output.found)]

    def add(self, frame: int, output: np.ndarray, original: np.ndarray | None) -> None:
        """Scores the next frame: pictures (H, W, 3), RGB uint8, of the output and, if it is compared, the original."""
        if self.sync:
            box = self.sync_boxes[frame] if self.config.sync == "pipeline" else None
            self.sync.add(output, box)
        if not self.faces.found[frame]:
            return
        self.pairs.add_mouths([output], self.faces.output.landmarks_in_frame[[frame]])
        if original is not None:
            output_crop = self._describe(frame, output, self.faces.output, self.output_features)
            original_crop = self._describe(frame, original, self.faces.original, self.original_features)
            self.pairs.add(output_crop, original_crop)

    def _describe(self, frame: int, picture: np.ndarray, faces: FaceSequence, features: Features) -> Tensor:
        """Adds the features of a frame; returns its face crop (1, 3, 128, 128)."""
        scorer = self.scorer
        landmarks = faces.landmarks_in_frame[frame]
        box = faces.boxes[frame]
        crop = crop_face(picture, box)
        image = to_tensor(crop[None]).to(scorer.device)
        if scorer.inception:
            features["FID"].append(scorer.inception(image).cpu().numpy())
        if scorer.embedder:
            face = identity.align(picture, landmarks) if self.config.csim == "aligned" else identity.resize(crop)
            features["CSIM"].append(scorer.embedder(face[None]))
        if self.config.points == "mesh":
            features["LipLMD"].append(to_crop(landmarks[None, LIP_SLICE], box))
        elif scorer.landmarks68:
            points = scorer.landmarks68(picture)[None, landmarks68.LIPS]
            features["LipLMD"].append(to_crop(points, box))
        return image

    def finish(self, result: ClipScore, pools: Pools) -> None:
        """Fills in the clip's values. The pools come last, so that a clip that fails adds nothing to them."""
        values = result.values
        values |= self.pairs.scores()
        outputs = {column: np.concatenate(batches) for column, batches in self.output_features.items()}
        originals = {column: np.concatenate(batches) for column, batches in self.original_features.items()}
        if "LipLMD" in outputs:
            distances = landmark_distance(outputs["LipLMD"], originals["LipLMD"])
            values["LipLMD"] = nan_mean(distances)
            lost = int(np.isnan(distances).sum())
            if lost:
                result.add_note(f"frames without 68 points, ignored by LipLMD: {lost}")
        if "CSIM" in outputs:
            values["CSIM"] = identity.csim(outputs["CSIM"], originals["CSIM"])
        self._score_sync(result)
        values |= motion_scores(self.faces.output, self.faces.original, self._silent_frames(), self.faces.compare)
        if "FID" in outputs:
            pools.output.add(outputs["FID"])
            pools.original.add(originals["FID"])

    def _score_sync(self, result: ClipScore) -> None:
        if not self.sync:
            return
        if self.config.sync == "pipeline" and self.faces.found.sum() < syncnet.MIN_TRACK:
            result.add_note(f"under {syncnet.MIN_TRACK} frames with a face: no LSE")
            return
        score = self.sync.finish()
        result.values |= {"LSE-C": score.confidence, "LSE-D": score.distance, "offset": score.offset}

    def _silent_frames(self) -> np.ndarray:
        """(F,); frames beyond the end of the sound do not count as silent."""
        num_frames = len(self.faces.found)
        silent = np.zeros(num_frames, dtype=bool)
        heard = min(num_frames, frames_for_samples(len(self.wav)))
        silent[:heard] = silent_frames(log_mel(self.wav), heard)
        return silent
