"""Scores one video against its original, frame by frame, without keeping the frames in memory.

Decoded frames and samples are compared, never a re-encoded file. Nothing is dropped silently: frames without a face are
counted, a clip that cannot be scored has a reason, and a column whose network is missing is named.
"""

import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy import ndarray
from torch import nn

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

# Column -> entry of the registry, and the function that loads it.
NETWORKS = {
    "LPIPS": ("lpips_alex", partial(LPIPS, "alex")),
    "LPIPS vgg": ("lpips_vgg", partial(LPIPS, "vgg")),
    "FID": ("inception", Inception),
    "CSIM": ("arcface", FaceEmbedder),
    "LSE-C": ("syncnet", syncnet.load),
}


def load_networks(columns: Iterable[str], device: torch.device) -> tuple[dict[str, Any], list[str]]:
    """Loads the networks of columns. Returns and prints a line for each column whose file is missing."""
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
    """A real video, its face, and the sound that mouths should follow; shared by all methods."""

    video: Video
    track: FaceTrack
    wav: ndarray  # (S,), 16 kHz
    compare: bool  # False in dubbing, where the video is no ground truth: frames are not compared with it
    mouths: RealMouths | None = None  # None without LPIPS or without a face


class Scorer:
    """Scores videos with the networks that are available; `missing` says which columns are left out, and why."""

    def __init__(self, device: str):
        """Raises UserError if this machine lacks the device."""
        self.device = pick_device(device)
        self.networks, self.missing = load_networks(NETWORKS, self.device)

    def open(self, path: Path, sound: Path) -> Original:
        """Tracks the face of a real video and reads its mouths; `sound` is the video whose sound they should follow."""
        video = Video(path)
        track = track_faces(video)
        compare = path == sound
        wav = read_sound(sound, len(track.found) if compare else None)
        frames = np.flatnonzero(track.found)
        mouths = RealMouths.read(frames, track.landmarks_in_frame[frames], video.frames, self.networks.get("LPIPS"))
        return Original(video, track, wav, compare, mouths)

    def score(self, clip: str, original: Original, output: Path | str, pool: FeaturePool) -> ClipScore:
        """Scores `output`, a video of any framing. If its size is not the original's, its own face boxes are used.

        The video is read more than once, because smoothing a box takes later frames.

        Args:
            clip: its name in the tables.
            original: from `open`; `output` should equal it or, in dubbing, only resemble it.
            output: the video, or the reason why there is none.
            pool: FID features of the method, to which the clip's are added.
        """
        result = ClipScore(clip, expected=frames_for_samples(len(original.wav)))
        try:
            if isinstance(output, str):
                raise UserError(output)
            video = Video(output)
            track = original.track if output == original.video.path else track_faces(video)
            result.produced = min(len(track.found), result.expected)
            rate = Video(output, fps=None).fps
            if abs(rate - FPS) > 0.01:
                result.notes.append(f"{rate:.4g} frames a second, read at {FPS}")
            frames, face, true_face = pair_faces(result, track, original)
            silent = silent_frames(log_mel(original.wav), len(face.boxes))
            silent[result.expected :] = False  # beyond the end of the sound nothing is known
            result.values |= motion_scores(face, true_face, silent, original.compare)
            if "LSE-C" in self.networks:
                embeddings = syncnet.embed(self.networks["LSE-C"], video, original.wav)
                result.values |= syncnet.score(*embeddings)
            pairs = PairScorer(self.networks, original.mouths)
            pairs.add_mouths(video.frames(frames), face.landmarks_in_frame[frames])
            if original.compare:
                self._compare(pairs, pool, frames, (video, original.video), (face, true_face))
            result.values |= pairs.scores()
        except Exception as error:
            result.reason = reason_of(error)
        return result

    def _compare(
        self,
        pairs: PairScorer,
        pool: FeaturePool,
        frames: ndarray,
        videos: tuple[Video, Video],
        faces: tuple[FaceSequence, FaceSequence],
    ) -> None:
        """Scores the faces in the given frames of two videos, output and original."""
        features = []  # (2, 2048) of each frame
        for frame, *pictures in zip(frames, *(video.frames(frames) for video in videos), strict=True):
            pair = list(zip(pictures, faces, strict=True))
            crops = [crop_face(picture, face.boxes[frame]) for picture, face in pair]
            images = to_tensor(np.stack(crops)).to(self.device)  # (2, 3, S, S)
            pairs.add(images[:1], images[1:])
            if "FID" in self.networks:
                features.append(self.networks["FID"](images).cpu().numpy())
            if "CSIM" in self.networks:
                aligned = [align(picture, face.landmarks_in_frame[frame]) for picture, face in pair]
                embedding, true_embedding = self.networks["CSIM"](np.stack(aligned))
                pairs.values["CSIM"].append(embedding @ true_embedding)
        if features:  # at the end, so that a clip that fails midway adds nothing
            pool.add(np.stack(features, axis=1))


def pair_faces(result: ClipScore, track: FaceTrack, original: Original) -> tuple[ndarray, FaceSequence, FaceSequence]:
    """Pairs the faces of a video with those of its original, and adds notes on missing faces and framing to `result`.

    Returns:
        The frames (n,) to score, in which both videos (in dubbing: the output) show a face; and all faces of output and
        original, whose numbers of frames may differ in dubbing.

    Raises:
        UserError: no frame can be scored.
    """
    true = original.track
    found = track.found
    boxes = track.boxes
    end = None  # in dubbing each video is scored to its own end
    if original.compare:
        end = min(len(track.found), len(true.found))
        found = track.found[:end] & true.found[:end]
        if len(track.found) != len(true.found):
            result.notes.append(f"common part of {len(track.found)} and {len(true.found)} frames")
        if track.frame_size == true.frame_size:
            boxes = true.boxes
        else:
            width, height = track.frame_size
            result.notes.append(f"framed differently, {width} x {height}, compared by its own face boxes")
    frames = np.flatnonzero(found)
    result.frames = len(frames)
    if len(frames) < len(found):
        result.notes.append(f"{len(found) - len(frames)} frames without a face, not scored")
    if not len(frames):
        raise UserError(f"no frame shows a face{' in both output and original' if original.compare else ''}")
    face = FaceSequence(track.landmarks_in_frame[:end], boxes[:end])
    return frames, face, FaceSequence(true.landmarks_in_frame[:end], true.boxes[:end])
