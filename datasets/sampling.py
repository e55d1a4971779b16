"""What both datasets share: which clips can be used, how often each is drawn, and what is changed in a sample."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter1d
from torch.utils.data import Dataset

from datasets.clip_cache import Clip
from datasets.splits import speaker_of
from datasets.windows import MIN_FRAMES
from face.landmarks import FLIP
from media.audio import SILENCE
from runtime.command_line import UserError

MOST_GAMMA = 0.5  # of the colour jitter's strength
STRETCH_FRAMES = 2  # how fast the stretch changes: sigma of a Gaussian in frames


@dataclass(frozen=True)
class AugmentConfig:
    """Changes to a sample; none by default, as in the paper."""

    flip: float = 0.0  # probability of mirroring a sample
    colour: float = 0.0  # each channel's gain changes by up to this share, equal in the target and its references
    box: float = 0.0  # each crop is moved and scaled by up to this share of its side
    stretch: float = 0.0  # of a window's landmarks in height, changing from frame to frame (standard deviation)
    sound: float = 0.0  # strength, 0 to 1, of another microphone, voice and room: loudness, tone, formants, noise


@dataclass(frozen=True)
class SamplingConfig:
    """How samples are drawn. An epoch is `samples_per_epoch` samples, or as many as there are clips.

    Balance: "clip" draws every clip equally often; "speaker" draws speakers by the square root
    of their frames, so that one who has most of them does not dominate, nor one with a single clip repeat for ever.
    """

    balance: Literal["clip", "speaker"] = "clip"
    samples_per_epoch: int | None = None
    augment: AugmentConfig = field(default_factory=AugmentConfig)


class SampledClips(Dataset[dict[str, object]]):
    """A map-style dataset whose item is a function of (seed, epoch, index) and nothing else.

    An index of `len(self)` or more belongs to a later epoch, so a sampler can count on without touching the workers.

    Raises:
        UserError: no clip is long enough.
    """

    def __init__(
        self, clips: Sequence[Clip], num_frames: int, num_references: int, config: SamplingConfig, seed: int = 0,
        speakers: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.num_frames, self.num_references = num_frames, num_references
        self.config, self.seed = config, seed
        least = max(MIN_FRAMES, num_frames + 1)  # one is left as a reference
        self.clips = [clip for clip in clips if clip.num_found >= least and clip.longest_run >= num_frames]
        if not self.clips:
            needed = f"{least} frames with a face, {num_frames} of them in a row"
            raise UserError(f"--cache: none of the {len(clips)} clips can be trained on: that takes {needed}")
        if excluded := len(clips) - len(self.clips):
            print(f"{excluded} of {len(clips)} clips left out: too few frames with a face", file=sys.stderr)
        weights = np.ones(len(self.clips))
        if config.balance == "speaker":
            names, frames = [clip.name for clip in self.clips], [clip.num_found for clip in self.clips]
            who = np.unique([(speakers or {}).get(n, speaker_of(n)) for n in names], return_inverse=True)[1]
            weights = frames / np.sqrt(np.bincount(who, frames)[who])
        self.ends = np.cumsum(weights) / weights.sum()

    def __len__(self) -> int:
        return self.config.samples_per_epoch or len(self.clips)

    def draw(self, index: int) -> tuple[np.random.Generator, Clip]:
        """The random numbers of an item, and its clip; over an epoch the clips get their shares evenly."""
        epoch, index = divmod(index, len(self))
        rng = np.random.default_rng((self.seed, epoch, index))
        clip = np.searchsorted(self.ends[:-1], (index + rng.random()) / len(self), side="right")
        return rng, self.clips[clip]


class Augmentation:
    """The changes drawn for one sample."""

    def __init__(self, rng: np.random.Generator, config: AugmentConfig) -> None:
        self.rng, self.config = rng, config
        self.flip = config.flip > 0 and rng.random() < config.flip
        self.table: np.ndarray | None = None
        if config.colour > 0:
            gain = 1 + config.colour * rng.uniform(-1, 1, 3)
            gamma = np.exp(config.colour * MOST_GAMMA * rng.uniform(-1, 1))
            tone = 255 * (np.arange(256)[:, None] / 255) ** gamma * gain
            self.table = np.clip(tone + 0.5, 0, 255).astype(np.uint8)[None]  # (1, 256, 3)

    def stretch(self, landmarks_in_crop: np.ndarray) -> np.ndarray:
        """A window (T, 131, 2), each frame a little taller or shorter, about as fast as a mouth moves.

        The box ends at the chin, so an opening jaw squeezes all other points towards its top: without this the network
        would read the old mouth from the pose, and the new mouth would follow the old speech.
        """
        if not self.config.stretch:
            return landmarks_in_crop
        noise = gaussian_filter1d(self.rng.normal(size=len(landmarks_in_crop) + 8 * STRETCH_FRAMES), STRETCH_FRAMES)
        noise = noise[4 * STRETCH_FRAMES : -4 * STRETCH_FRAMES] * np.sqrt(2 * np.sqrt(np.pi) * STRETCH_FRAMES)  # std 1
        factor = np.stack([np.ones_like(noise), np.exp(self.config.stretch * noise)], axis=-1)  # (T, 2)
        return (landmarks_in_crop * factor[:, None]).astype(np.float32)

    def sound(self, mel: np.ndarray) -> np.ndarray:
        """Mel windows (..., 80, 16) as if heard otherwise: nothing is moved in time. Silence stays silence."""
        if not self.config.sound:
            return mel
        rng, bands, strength = self.rng, mel.shape[-2], self.config.sound
        position = np.linspace(-1, 1, bands)
        stretch = 1 + 0.12 * strength * rng.uniform(-1, 1)  # of the formants, as a longer or shorter throat does
        source = np.clip((np.arange(bands) * stretch), 0, bands - 1)
        low = np.minimum(source.astype(int), bands - 2)
        share = (source - low).astype(np.float32)[:, None]
        heard = mel[..., low, :] * (1 - share) + mel[..., low + 1, :] * share
        tone = np.interp(position, np.linspace(-1, 1, 6), rng.normal(0, 0.3, 6)) + rng.uniform(-0.8, 0.8)
        noise = SILENCE + strength * rng.uniform(-0.5, 2.0) + 0.5 * rng.uniform(-1, 1) * position
        louder = np.maximum(heard + strength * tone[:, None], noise[:, None])
        heard = np.where(heard > SILENCE + 1e-3, np.clip(louder, SILENCE, -SILENCE), heard)
        start, width = rng.integers(bands), rng.integers(0, 1 + round(16 * strength))
        heard[..., start : start + width, :] = SILENCE
        return heard.astype(np.float32)

    def move(self) -> np.ndarray | None:
        """Draws how one crop is moved: (2, 2), scale and shift of x and of y in crop coordinates; None: not at all."""
        box, rng = self.config.box, self.rng
        if not (self.flip or box):
            return None
        scale = np.full(2, 1 + box * rng.uniform(-1, 1))
        shift = (1 - scale) / 2 + box * rng.uniform(-1, 1, 2)
        if self.flip:
            scale, shift = scale * (-1, 1), shift * (-1, 1) + (1, 0)
        return np.stack([scale, shift], axis=1)

    def landmarks(self, landmarks_in_crop: np.ndarray, move: np.ndarray | None) -> np.ndarray:
        """(..., 131, 2) in crop coordinates, moved; mirrored points take each other's place."""
        if move is None:
            return landmarks_in_crop
        moved = (landmarks_in_crop * move[:, 0] + move[:, 1]).astype(np.float32)
        return moved[..., FLIP, :] if self.flip else moved

    def face(self, face: np.ndarray, move: np.ndarray | None) -> np.ndarray:
        """(S, S, 3) uint8, moved likewise and recoloured."""
        if move is not None:
            shift = move[:, 1] * len(face) + (move[:, 0] - 1) / 2  # from pixel centre to pixel centre
            matrix = np.column_stack([np.diag(move[:, 0]), shift])
            face = cv2.warpAffine(face, matrix, face.shape[:2], borderMode=cv2.BORDER_REFLECT_101)
        return face if self.table is None else cv2.LUT(face, self.table)
