"""Scores one video against its original, frame by frame, without keeping frames.

Frames and samples are compared, never a re-encoded file. Nothing is dropped silently: frames without a face are
counted, a clip that cannot be scored has a reason, and a column whose network is missing is named.
"""

import sys
from collections.abc import Callable, Iterable
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor, nn

from checkpoints import registry
from evaluation.protocol import read_sound
from evaluation.tables import ClipScore, reason_of
from face.crop import crop_face
from face.tracking import FaceTrack, track_faces
from media.audio import FPS, frames_for_samples, log_mel
from media.video import Video
from metrics import syncnet
from metrics.identity import FaceEmbedder, align
from metrics.image_quality import LPIPS, FeaturePool, Inception
from metrics.lip_motion import FaceSequence, motion_scores, silent_frames
from metrics.mouth import RealMouths
from metrics.pairs import PairScorer
from networks import to_tensor
from runtime.command_line import UserError
from runtime.device import pick_device

# Column -> entry of the registry, and what reads it.
NETWORKS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "LPIPS": ("lpips_alex", partial(LPIPS, "alex")),
    "LPIPS vgg": ("lpips_vgg", partial(LPIPS, "vgg")),
    "FID": ("inception", Inception),
    "CSIM": ("arcface", FaceEmbedder),
    "LSE-C": ("syncnet", syncnet.load),
}


def load_networks(columns: Iterable[str], device: torch.device) -> tuple[dict[str, Any], list[str]]:
    """The networks of columns, and a line for each column whose file is missing; these are printed, too."""
    networks = {}
    missing = []
    for column in columns:
        key, load = NETWORKS[column]
        path = registry.find(key)
        if path is None:
            missing.append(f"{column} left out: {registry.how_to_get(key)}")
            print(missing[-1], file=sys.stderr)
        else:
            network = load(path)
            networks[column] = network.to(device) if isinstance(network, nn.Module) else network
    return networks, missing


class Original(NamedTuple):
    """A real video, its face, and the sound that mouths are to follow; shared by all methods."""

    path: Path
    track: FaceTrack
    wav: ndarray  # (S,), 16 kHz
    compare: bool  # False in dubbing, where it is no ground truth: only sound and motion are scored
    mouths: RealMouths | None = None  # None without LPIPS or without a face


class Pools(NamedTuple):
    """FID's features of all frames of a method and of their originals."""

    output: FeaturePool
    original: FeaturePool


class FacePair(NamedTuple):
    """The faces of a video and of its original, which in dubbing may have another number of frames."""

    found: ndarray  # (F,) whether a frame is scored: both (in dubbing: the output) show a face
    output: FaceSequence
    original: FaceSequence


class Scorer:
    """The available networks, loaded once; `missing` says which columns are left out and why."""

    def __init__(self, device: str) -> None:
        """Raises UserError if this machine lacks the device."""
        self.device = pick_device(device)
        self.networks, self.missing = load_networks(NETWORKS, self.device)

    def open(self, path: Path, sound: Path) -> Original:
        """Tracks the face of a real video and describes its mouths; `sound` is the video with the sound to follow."""
        video = Video(path)
        track = track_faces(video)
        compare = path == sound
        wav = read_sound(sound, len(track.found) if compare else None)
        frames = np.flatnonzero(track.found)
        mouths = RealMouths.read(frames, track.landmarks_in_frame[frames], video.frames, self.networks.get("LPIPS"))
        return Original(path, track, wav, compare, mouths)

    def score(self, clip: str, original: Original | str, output: Path | str, pools: Pools) -> ClipScore:
        """Scores `output`, a video of any framing. If it has another size, its own face boxes are used.

        It is read twice, because boxes are smoothed over later frames.

        Args:
            clip: its name in the tables.
            original: from `open`, the video that `output` is meant to equal or, in dubbing, only to resemble.
            output: the video. Either may be the reason why there is none.
            pools: of the method; the clip's features are added.
        """
        if isinstance(original, str):
            return ClipScore(clip, reason=original)
        result = ClipScore(clip, expected=frames_for_samples(len(original.wav)))
        if isinstance(output, str):
            result.reason = output
            return result
        try:
            track = original.track if output == original.path else track_faces(Video(output))
            result.produced = min(len(track.found), result.expected)
            rate = Video(output, fps=None).fps
            if abs(rate - FPS) > 0.01:
                result.notes.append(f"{rate:.4g} frames a second, read at {FPS}")
            faces = pair_faces(result, track, original)
            silent = silent_frames(log_mel(original.wav), len(faces.found))
            silent[result.expected :] = False  # beyond the end of the sound nothing is known
            result.values |= motion_scores(faces.output, faces.original, silent, original.compare)
            features = self._score_frames(result, faces, output, original)
            if features:
                for pool, of_frames in zip(pools, np.stack(features, axis=1), strict=True):
                    pool.add(of_frames)
        except Exception as error:
            result.reason = reason_of(error)
        return result

    def _score_frames(self, result: ClipScore, faces: FacePair, output: Path, original: Original) -> list[ndarray]:
        """Returns Inception's features (2, 2048) of output and original for each frame."""
        networks = self.networks
        pairs = PairScorer(networks, original.mouths)
        sync = syncnet.SyncScorer(networks["LSE-C"], original.wav) if "LSE-C" in networks else None
        features = []
        originals = Video(original.path) if original.compare else repeat(None)
        for i, picture, true in zip(range(len(faces.found)), Video(output), originals, strict=False):
            if sync:
                sync.add(picture)
            if not faces.found[i]:
                continue
            landmarks = faces.output.landmarks_in_frame[i]
            pairs.add_mouths([picture], landmarks[None])
            if true is None:
                continue
            image = self._crop(picture, faces.output.boxes[i])
            true_image = self._crop(true, faces.original.boxes[i])
            pairs.add(image, true_image)
            if "FID" in networks:
                features.append(networks["FID"](torch.cat([image, true_image])).cpu().numpy())
            if "CSIM" in networks:
                aligned = [align(picture, landmarks), align(true, faces.original.landmarks_in_frame[i])]
                embedding, true_embedding = networks["CSIM"](np.stack(aligned))
                pairs.values["CSIM"].append(embedding @ true_embedding)
        result.values |= pairs.scores()
        if sync:
            result.values |= sync.scores()
        return features

    def _crop(self, picture: ndarray, box: ndarray) -> Tensor:
        return to_tensor(crop_face(picture, box)[None]).to(self.device)


def pair_faces(result: ClipScore, track: FaceTrack, original: Original) -> FacePair:
    """Pairs the faces of a video with those of its original, and notes in `result` whatever is special about them.

    Raises UserError if no frame can be scored.
    """
    true = original.track
    found = track.found
    boxes = track.boxes
    end = None  # in dubbing each is scored to its own end
    if original.compare:
        end = min(len(track.found), len(true.found))
        found = track.found[:end] & true.found[:end]
        if len(track.found) != len(true.found):
            result.notes.append(f"common part of {len(track.found)} and {len(true.found)} frames")
        if track.frame_size == true.frame_size:
            boxes = true.boxes
        else:
            width, height = track.frame_size
            result.notes.append(f"framed otherwise, {width} x {height}, compared by its own face boxes")
    result.frames = int(found.sum())
    if result.frames < len(found):
        result.notes.append(f"{len(found) - result.frames} frames without a face, not scored")
    if not result.frames:
        raise UserError(f"no frame shows a face{' in both output and original' if original.compare else ''}")
    output = FaceSequence(track.landmarks_in_frame[:end], boxes[:end])
    return FacePair(found, output, FaceSequence(true.landmarks_in_frame[:end], true.boxes[:end]))
