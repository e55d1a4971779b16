"""Scores one video against its original, frame by frame in batches; no pictures are kept.

Frames and samples are compared, never a re-encoded file. Nothing is dropped silently: frames without a face are
counted, a clip that can't be scored has a reason, a column whose network is not here is named.
"""

from collections import defaultdict
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from checkpoints import registry
from evaluation.tables import ClipScore, reason_of
from face.crop import SIZE, crop_face, overlap, resize_face, to_crop
from face.landmarks import LIP_SLICE
from face.tracking import FaceTrack, fill_gaps, track_faces
from media.audio import FPS, frames_for_samples, log_mel
from media.video import Video
from metrics import identity, landmarks68, lip_motion, syncnet
from metrics.image_quality import LPIPS, FeaturePool, Inception, psnr, ssim
from networks import to_tensor
from runtime.command_line import UserError
from runtime.device import pick_device

SAME_PLACE = 0.7  # overlap of output's and original's face boxes above which both are framed alike
BATCH = 16  # frames scored at once
NEEDS = {  # column -> registry entries, any of which will do
    "LPIPS": ("lpips_alex",), "LPIPS vgg": ("lpips_vgg",), "FID": ("inception",), "CSIM": ("arcface",),
    "LSE-C": ("syncnet",),
}  # fmt: skip


@dataclass(frozen=True)
class Options:
    """How to score. The defaults are those of the tables."""

    crop: Literal["face", "frame"] = "face"
    """Pictures: the original's face box at 128 x 128, or the full frame."""
    points: Literal["mesh", "68"] = "mesh"
    """LipLMD: 40 lip points of the face mesh, or 20 of face-alignment's 68 (flip averaged; needs its two files)."""
    scale: Literal["crop", "eyes", "pixels"] = "crop"
    """LipLMD: over the crop's side, over the distance of the eyes, or in pixels of the 128 crop."""
    norm: Literal["l2", "l1"] = "l2"
    """LipLMD: Euclidean, or mean absolute difference of a coordinate."""
    csim: Literal["aligned", "resized"] = "aligned"
    """CSIM: faces aligned by 5 points, or the crop only resized."""
    pairs: Literal["frame", "all", "set"] = "frame"
    """CSIM: frame by frame, all pairs within a clip, or all pairs of all clips (by mistake, in the paper's helper)."""
    sync: Literal["lrs", "pipeline"] = "lrs"
    """LSE: the whole frame (as for LRS2), or a crop around our face track (at least 50 frames)."""
    common: bool = False
    """Score the common part of videos with unequal numbers of frames, instead of failing them."""
    device: str = "cpu"
    """cpu, cuda, mps or auto."""


Pools = dict[str, tuple[FeaturePool, FeaturePool]]  # column -> features of all a method's pictures and of all originals


class Scorers:
    """The networks that are here, loaded once; `missing` says which columns are lost and why."""

    def __init__(self, options: Options) -> None:
        self.options, self.device = options, (device := str(pick_device(options.device)))
        paths = {column: registry.find(*keys) for column, keys in NEEDS.items()}
        self.missing = [registry.missing(column, *NEEDS[column]) for column, path in paths.items() if not path]
        nets = {"LPIPS": "alex", "LPIPS vgg": "vgg"}
        self.lpips = {c: LPIPS(net, path).to(device) for c, net in nets.items() if (path := paths[c])}
        self.inception = Inception(paths["FID"]).to(device) if paths["FID"] else None
        self.embedder = identity.FaceEmbedder(paths["CSIM"], device) if paths["CSIM"] else None
        self.syncnet = syncnet.load(paths["LSE-C"], device) if paths["LSE-C"] else None
        self.points68 = None
        if options.points == "68":
            fan, s3fd = registry.find("fan"), registry.find("s3fd")
            self.missing += [registry.missing("LipLMD", k) for k, p in (("fan", fan), ("s3fd", s3fd)) if not p]
            self.points68 = landmarks68.Points68(fan, s3fd, device) if fan and s3fd else None

    def score(
        self, clip: str, original: Path, track: FaceTrack, output: Path, wav: np.ndarray, pools: Pools,
        compare: bool = True,
    ) -> ClipScore:  # fmt: skip
        """Scores `output` against `original`, whose faces are `track`, and against the sound `wav` (S,).

        Its frames are read twice: boxes are smoothed over frames to come, so tracking ends before cropping begins.

        Args:
            clip: its name in the tables.
            original: the video that `output` is to equal, or, without `compare`, only to sound like.
            track: of the original; made once and shared by all methods.
            output: a video of any framing: with the face in another place it is compared by its own face boxes.
            wav: 16 kHz, the sound that the mouth follows.
            pools: of the method; what only all frames of all clips together tell is added here.
            compare: False where there is no ground truth (dubbing): only the scores of sound and motion.
        """
        result = ClipScore(clip, wanted=frames_for_samples(len(wav)))
        try:
            mine = track if output == original else track_faces(Video(output))
            result.produced = min(len(mine.found), result.wanted)
            if abs((rate := Video(output, fps=None).fps) - FPS) > 0.01:
                result.remark(f"{rate:.4g} frames a second, read at {FPS}")
            comparison = _Comparison(self, result, track, mine, wav, compare)
            if self.syncnet or compare:
                frames = zip(Video(output), Video(original if compare else output), strict=False)
                numbered = enumerate(islice(frames, comparison.count))
                while batch := list(islice(numbered, BATCH)):
                    comparison.add(batch)
            comparison.finish(pools)
        except Exception as error:
            result.reason = reason_of(error)
        return result


class _Comparison:
    """One pass over the frames of an output and its original. Raises a UserError if they can't be compared."""

    def __init__(
        self, scorers: Scorers, result: ClipScore, track: FaceTrack, mine: FaceTrack, wav: np.ndarray, compare: bool
    ) -> None:
        self.scorers, self.options, self.result, self.wav, self.compare = scorers, scorers.options, result, wav, compare
        made, real = len(mine.found), len(track.found)
        if compare and made != real:
            if not self.options.common:
                raise UserError(f"{made} frames, the original has {real} (--score.common scores the common part)")
            result.remark(f"common part of {made} and {real} frames")
        count = self.count = min(made, real) if compare else made
        common = slice(count if compare else None)  # in dubbing the original may have another number of frames
        self.seen = (mine.found[common] & track.found[common]) if compare else mine.found
        seen = int(self.seen.sum())
        result.frames, result.faceless = count if self.options.crop == "frame" else seen, count - seen
        if not seen:
            raise UserError("no frame shows a face" + " in both output and original" * compare)
        # Output, then original: landmarks (F, 131, 2) in the frame and the box (F, 4) to crop by.
        self.faces = [(t.landmarks_in_frame[common], t.boxes[common]) for t in (mine, track)]
        if compare:
            places = overlap(*(of[self.seen].astype(float) for _, of in self.faces))
            if mine.frame_size == track.frame_size and np.median(places) >= SAME_PLACE:
                self.faces[0] = (self.faces[0][0], self.faces[1][1])
            else:
                result.remark("framed otherwise, {} x {}, compared by its own face boxes".format(*mine.frame_size))
        self.nearest = mine.boxes[fill_gaps(mine.found)]
        self.sums: dict[str, list[float]] = defaultdict(list)
        self.features: dict[str, list[list[torch.Tensor]]] = defaultdict(list)  # column -> outputs', originals' (n, d)
        self.points: list[list[np.ndarray]] = [[], []]  # (68, 2) each, of outputs and originals, where asked for
        self.sync = syncnet.SyncScorer(scorers.syncnet, wav) if scorers.syncnet else None

    def add(self, batch: list[tuple[int, tuple[np.ndarray, np.ndarray]]]) -> None:
        """The next frames: number, output and original."""
        embed, find = self.scorers.embedder, self.scorers.points68
        if self.sync:
            for i, (frame, _) in batch:
                self.sync.add(frame, self.nearest[i] if self.options.sync == "pipeline" else None)
        if not self.compare:
            return
        for _, (made, real) in batch if self.options.crop == "frame" else ():  # LPIPS takes GBs for each of 1080p
            self._pictures([resize_face(made, (real.shape[1], real.shape[0]))[None], real[None]])
        if not (seen := [(i, pair) for i, pair in batch if self.seen[i]]):
            return
        numbers, pairs = zip(*seen, strict=True)
        crops, vectors = [], []  # of outputs, then of originals
        for k, pictures in enumerate(zip(*pairs, strict=True)):
            landmarks, boxes = (of[list(numbers)] for of in self.faces[k])
            crops.append(np.stack(list(map(crop_face, pictures, boxes))))  # (n, 128, 128, 3)
            if embed:
                aligned = self.options.csim == "aligned"
                faces = map(identity.align, pictures, landmarks) if aligned else map(identity.resize, crops[k])
                vectors.append(torch.from_numpy(embed(np.stack(list(faces)))))
            if find:
                self.points[k] += map(find, pictures)
        if embed:
            self.features["CSIM"].append(vectors)
        if self.options.crop == "face":
            self._pictures(crops)

    def _pictures(self, pictures: list[np.ndarray]) -> None:
        """PSNR, SSIM, LPIPS, FID of outputs and originals, both (n, H, W, 3) uint8."""
        scorers = self.scorers
        made, real = (to_tensor(x).to(scorers.device) for x in pictures)
        for column, metric in {"PSNR": psnr, "SSIM": ssim, **scorers.lpips}.items():
            self.sums[column] += metric(made, real).tolist()
        if scorers.inception:
            self.features["FID"].append([scorers.inception(x).cpu() for x in (made, real)])

    def finish(self, pools: Pools) -> None:
        """Fills in the scores of the whole clip; adds to `pools` last, so that one that fails has added nothing."""
        options, values, count = self.options, self.result.values, self.count
        values |= {column: float(np.mean(each)) for column, each in self.sums.items()}
        mesh = options.points == "mesh"
        if self.compare and (mesh or self.points[0]):
            found = [landmarks[self.seen] for landmarks, _ in self.faces] if mesh else self.points
            boxes = [boxes[self.seen] for _, boxes in self.faces]
            made, real = (to_crop(np.array(x), box) * SIZE for x, box in zip(found, boxes, strict=True))  # in pixels
            lips, eyes = (LIP_SLICE, identity.EYES) if mesh else (landmarks68.LIPS, landmarks68.EYES)
            between_eyes = lip_motion.interocular(*(real[:, eye] for eye in eyes))
            scale = {"crop": SIZE, "pixels": 1.0, "eyes": between_eyes}[options.scale]
            distance = lip_motion.landmark_distance(made[:, lips], real[:, lips], scale, options.norm)  # (n,)
            values["LipLMD"] = lip_motion.nan_mean(distance)
            if lost := int(np.isnan(distance).sum()):
                self.result.remark(f"frames without 68 points, which count for no LipLMD: {lost}")
        if self.sync and options.sync == "pipeline" and self.seen.sum() < syncnet.MIN_TRACK:
            self.result.remark(f"under {syncnet.MIN_TRACK} frames with a face: no LSE")
        elif self.sync:
            values |= zip(("LSE-C", "LSE-D", "offset"), self.sync.finish(), strict=True)
        silent, heard = np.zeros(count, bool), min(count, self.result.wanted)  # what outlasts the sound is no silence
        silent[:heard] = lip_motion.silent_frames(log_mel(self.wav), heard)
        values |= lip_motion.motion(*self.faces[0], silent, *self.faces[1], in_step=self.compare)
        for column, batches in self.features.items():
            made, real = (torch.cat(parts) for parts in zip(*batches, strict=True))  # (F, d)
            if column == "CSIM":
                values[column] = identity.csim(made.numpy(), real.numpy(), options.pairs)
            if column == "FID" or options.pairs == "set":
                pool_made, pool_real = pools.setdefault(column, (FeaturePool(), FeaturePool()))
                pool_made.add(made)
                pool_real.add(real)
