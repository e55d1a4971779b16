"""Scores one video against its original, frame by frame, without keeping frames.

Frames and samples are compared, never a re-encoded file. Nothing is dropped silently: frames without a face are
counted, a clip that cannot be scored has a reason, and a column whose network is missing is named.
"""

from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from checkpoints import registry
from evaluation.tables import ClipScore, reason_of
from face.crop import crop_face
from face.landmarks import LIP_SLICE
from face.tracking import FaceTrack, track_faces
from media.audio import FPS, frames_for_samples, log_mel
from media.video import Video
from metrics import syncnet
from metrics.identity import FaceEmbedder, align, csim
from metrics.image_quality import LPIPS, FeaturePool, Inception
from metrics.lip_motion import FaceSequence, landmark_distance, motion_scores, nan_mean, silent_frames
from metrics.mouth import RealMouths, mouth_crops
from metrics.pairs import PairScorer
from networks import to_tensor
from runtime.command_line import UserError
from runtime.device import pick_device

MAX_REAL_MOUTHS = 250  # of a video, evenly spaced, with which drawn mouths are compared


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

    def __init__(self, device: str) -> None:
        """Raises UserError if this machine lacks the device."""
        self.device = str(pick_device(device))
        self.missing: list[str] = []
        self.lpips: dict[str, LPIPS] = {}
        for column, network in (("LPIPS", "alex"), ("LPIPS vgg", "vgg")):
            path = self._find(column, f"lpips_{network}")
            if path:
                self.lpips[column] = LPIPS(network, path).to(self.device)
        inception = self._find("FID", "inception")
        self.inception = Inception(inception).to(self.device) if inception else None
        arcface = self._find("CSIM", "arcface")
        self.embedder = FaceEmbedder(arcface) if arcface else None
        sync = self._find("LSE-C", "syncnet")
        self.syncnet = syncnet.load(sync, self.device) if sync else None

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
            output: a video of any framing. If it has another size, its own face boxes are used.
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
            faces = pair_faces(result, track, original.track, compare)
            silent = silent_frames_of(wav, len(faces.found))
            result.values |= motion_scores(faces.output, faces.original, silent, compare)
            self._score_frames(result, faces, output, original, wav, pools)
        except Exception as error:
            result.reason = reason_of(error)
        return result

    def _score_frames(
        self, result: ClipScore, faces: FacePair, output: Path, original: Original, wav: np.ndarray, pools: Pools
    ) -> None:
        pairs = PairScorer(self.lpips, original.mouths)
        sync = syncnet.SyncScorer(self.syncnet, wav) if self.syncnet else None
        features: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])  # Inception's, of output and original
        originals = Video(original.path) if faces.compare else repeat(None)
        for i, picture, true in zip(range(len(faces.found)), Video(output), originals, strict=False):
            if sync:
                sync.add(picture)
            if not faces.found[i]:
                continue
            pairs.add_mouths([picture], faces.output.landmarks_in_frame[[i]])
            if true is None:
                continue
            image = self._crop(picture, faces.output.boxes[i])
            true_image = self._crop(true, faces.original.boxes[i])
            pairs.add(image, true_image)
            if self.inception is not None:
                both = self.inception(torch.cat([image, true_image])).cpu().numpy()
                features[0].append(both[:1])
                features[1].append(both[1:])
            if self.embedder:
                aligned = align(picture, faces.output.landmarks_in_frame[i])
                true_aligned = align(true, faces.original.landmarks_in_frame[i])
                pairs.values["CSIM"].append(csim(*self.embedder(np.stack([aligned, true_aligned]))))
        result.values |= pairs.scores()
        if sync:
            score = sync.finish()
            result.values |= {"LSE-C": score.confidence, "LSE-D": score.distance, "offset": score.offset}
        if faces.compare:
            lips = [sequence.landmarks_in_crop[:, LIP_SLICE] for sequence in (faces.output, faces.original)]
            result.values["LipLMD"] = nan_mean(landmark_distance(*lips)[faces.found])
        if features[0]:
            pools.output.add(np.concatenate(features[0]))
            pools.original.add(np.concatenate(features[1]))

    def _crop(self, picture: np.ndarray, box: np.ndarray) -> Tensor:
        return to_tensor(crop_face(picture, box)[None]).to(self.device)


def silent_frames_of(wav: np.ndarray, num_frames: int) -> np.ndarray:
    """(F,); frames beyond the end of the sound do not count as silent."""
    silent = np.zeros(num_frames, dtype=bool)
    heard = min(num_frames, frames_for_samples(len(wav)))
    silent[:heard] = silent_frames(log_mel(wav), heard)
    return silent


def evenly_spaced(count: int, most: int) -> np.ndarray:
    """Positions of at most `most` of `count` things."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(int))


def pair_faces(result: ClipScore, output: FaceTrack, original: FaceTrack, compare: bool) -> FacePair:
    """Pairs the faces of two tracks, and notes in `result` whatever is special about them.

    Raises UserError if no frame can be scored.
    """
    output_faces = FaceSequence(output.landmarks_in_frame, output.boxes)
    original_faces = FaceSequence(original.landmarks_in_frame, original.boxes)
    found = output.found
    if compare:
        num_frames = min(len(output.found), len(original.found))
        if len(output.found) != len(original.found):
            result.add_note(f"common part of {len(output.found)} and {len(original.found)} frames")
        found = output.found[:num_frames] & original.found[:num_frames]
        output_faces = output_faces.first(num_frames)
        original_faces = original_faces.first(num_frames)
        if output.frame_size == original.frame_size:
            output_faces = output_faces._replace(boxes=original_faces.boxes)
        else:
            width, height = output.frame_size
            result.add_note(f"framed otherwise, {width} x {height}, compared by its own face boxes")
    result.frames = int(found.sum())
    result.faceless = len(found) - result.frames
    if not result.frames:
        raise UserError(f"no frame shows a face{' in both output and original' if compare else ''}")
    return FacePair(found, output_faces, original_faces, compare)
