"""What both datasets share: the usable clips, the frequency of each clip, and the augmentation of samples."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import cv2
import numpy as np
from numpy import ndarray
from scipy.interpolate import interp1d
from scipy.ndimage import gaussian_filter1d

from datasets.clip_cache import Clip
from datasets.windows import MIN_FRAMES
from face.landmarks import FLIP
from media.audio import SILENCE
from runtime.command_line import UserError

Move = tuple[ndarray, ndarray]  # scale and shift in crop coordinates, x then y
LARGEST_GAMMA = 0.5  # logarithm of the gamma, relative to the strength of the colour jitter
STRETCH_FRAMES = 2  # smoothness of the stretch over time: sigma of a Gaussian in frames


@dataclass(frozen=True)
class AugmentConfig:
    """Augmentation of a sample. The paper uses none."""

    flip: float = 0.0
    """Probability that a sample is mirrored."""
    colour: float = 0.0
    """Largest relative change of each channel's gain, the same for the target and its references."""
    box: float = 0.0
    """Largest shift and scaling of each crop, relative to its side."""
    stretch: float = 0.0
    """Standard deviation of the vertical scaling of a window's landmarks, which changes from frame to frame."""
    sound: float = 0.0
    """Strength, 0 to 1, of simulating another microphone, voice and room: loudness, tone, formants, noise."""
    tempo: float = 0.0
    """Largest relative change of the speed of speech."""


@dataclass(frozen=True)
class SamplingConfig:
    """How samples are drawn."""

    balance: Literal["clip", "speaker"] = "clip"
    """clip: every clip equally often. speaker: each speaker by the square root of the number of its frames."""
    samples_per_epoch: int | None = None
    """Samples of an epoch; None for as many as there are clips."""
    augment: AugmentConfig = AugmentConfig()
    overfit: int = 0
    """Train on this many fixed samples only, as a check: the network must learn them by heart."""


@dataclass
class SampledClips:
    """A map-style dataset whose item is a function of (seed, epoch, index) and nothing else.

    Indices of `len(self)` and above belong to later epochs, so that epochs can go on without new workers.

    Raises:
        UserError: no clip has enough frames with a face.
    """

    clips: Sequence[Clip]
    """Clips to draw from; those with too few faces are left out."""
    num_frames: int
    """T, frames of a window."""
    num_references: int
    """N, references of a sample."""
    config: SamplingConfig
    seed: int = 0
    speakers: Mapping[str, str] = field(default_factory=dict)
    """Speaker of each clip by name, for balancing."""

    def __post_init__(self) -> None:
        needed = max(MIN_FRAMES, self.num_frames + 1)  # at least one frame is left as a reference
        usable = [clip for clip in self.clips if clip.num_found >= needed and clip.longest_run >= self.num_frames]
        if not usable:
            frames = f"{needed} frames with a face, {self.num_frames} of them in a row"
            raise UserError(f"none of the {len(self.clips)} clips can be trained on: training needs {frames}")
        if len(usable) < len(self.clips):
            print(f"only {len(usable)} of {len(self.clips)} clips have enough frames with a face", file=sys.stderr)
        self.clips = usable
        weights = np.ones(len(usable))
        if self.config.balance == "speaker":
            # The square root keeps long speakers from dominating, and those with a single clip from repeating it.
            frames = np.array([clip.num_found for clip in usable])
            _, speaker = np.unique([self.speakers[clip.name] for clip in usable], return_inverse=True)
            weights = frames / np.sqrt(np.bincount(speaker, frames)[speaker])
        self.ends = np.cumsum(weights) / weights.sum()

    def __len__(self) -> int:
        return self.config.overfit or self.config.samples_per_epoch or len(self.clips)

    def draw(self, index: int) -> tuple[np.random.Generator, Clip]:
        """The random generator of an item, and its clip. Clips are spread evenly over an epoch."""
        epoch, index = divmod(index, len(self))
        rng = np.random.default_rng((self.seed, 0 if self.config.overfit else epoch, index))
        position = (index + rng.random()) / len(self)
        clip = int(np.searchsorted(self.ends[:-1], position, side="right"))
        return rng, self.clips[clip]


@dataclass
class Augmentation:
    """The augmentation drawn for one sample."""

    rng: np.random.Generator
    config: AugmentConfig

    def __post_init__(self) -> None:
        rng = self.rng
        config = self.config
        self.flip = config.flip > 0 and rng.random() < config.flip
        self.table = None  # (1, 256, 3): new value of each value of each channel
        if config.colour > 0:
            gain = 1 + config.colour * rng.uniform(-1, 1, 3)
            gamma = np.exp(config.colour * LARGEST_GAMMA * rng.uniform(-1, 1))
            values = np.arange(256)[:, None] / 255
            table = 255 * values**gamma * gain
            self.table = np.clip(table + 0.5, 0, 255).astype(np.uint8)[None]

    def stretch(self, landmarks_in_crop: ndarray) -> ndarray:
        """Scales each frame of a window (T, 131, 2) vertically, by a factor that changes as fast as a mouth moves.

        The face box ends at the chin, so an opening jaw shifts all other points upwards in crop coordinates. Without
        this augmentation the network reads the old mouth from the pose, and the new mouth follows the old speech.
        """
        if not self.config.stretch:
            return landmarks_in_crop
        margin = 4 * STRETCH_FRAMES
        noise = self.rng.normal(size=len(landmarks_in_crop) + 2 * margin)
        smooth = gaussian_filter1d(noise, STRETCH_FRAMES)[margin:-margin]
        smooth *= np.sqrt(2 * np.sqrt(np.pi) * STRETCH_FRAMES)  # standard deviation 1
        stretched = landmarks_in_crop.copy()
        stretched[..., 1] *= np.exp(self.config.stretch * smooth)[:, None]
        return stretched

    def change_sound(self, mel_windows: ndarray) -> ndarray:
        """Changes mel windows (..., 80, 16) as if recorded differently; timing and silence stay the same."""
        strength = self.config.sound
        if not strength:
            return mel_windows
        rng = self.rng
        bands = mel_windows.shape[-2]
        # Another voice: formants at other frequencies.
        source = np.arange(bands) * (1 + 0.12 * strength * rng.uniform(-1, 1))
        shifted = interp1d(np.arange(bands), mel_windows, axis=-2)(np.minimum(source, bands - 1))
        # Another microphone and room: tone curve, loudness, noise floor.
        position = np.linspace(-1, 1, bands)
        curve = rng.normal(0, 0.3, 6)  # at 6 frequencies, interpolated between them
        tone = np.interp(position, np.linspace(-1, 1, 6), curve) + rng.uniform(-0.8, 0.8)
        noise = SILENCE + strength * rng.uniform(-0.5, 2.0) + 0.5 * rng.uniform(-1, 1) * position
        louder = np.clip(shifted + strength * tone[:, None], np.maximum(noise, SILENCE)[:, None], -SILENCE)
        changed = np.where(shifted > SILENCE + 1e-3, louder, shifted)
        first = rng.integers(bands)
        count = rng.integers(0, 1 + round(16 * strength))
        changed[..., first : first + count, :] = SILENCE  # masked bands
        return changed.astype(np.float32)

    def draw_move(self) -> Move:
        """Draws the scale and shift of a crop."""
        box = self.config.box
        scale = np.full(2, 1 + box * self.rng.uniform(-1, 1))
        shift = (1 - scale) / 2 + box * self.rng.uniform(-1, 1, 2)
        if self.flip:
            scale = scale * (-1, 1)
            shift = shift * (-1, 1) + (1, 0)
        return scale, shift

    def move_landmarks(self, landmarks_in_crop: ndarray, move: Move) -> ndarray:
        """Moves landmarks (..., 131, 2) in crop coordinates; if mirrored, left and right points swap."""
        scale, shift = move
        moved = (landmarks_in_crop * scale + shift).astype(np.float32)
        return moved[..., FLIP, :] if self.flip else moved

    def change_face(self, face: ndarray, move: Move) -> ndarray:
        """Moves a face crop (S, S, 3) uint8 in the same way, and changes its colours."""
        scale, shift = move
        pixels = shift * len(face) + (scale - 1) / 2  # from pixel centre to pixel centre
        matrix = np.column_stack([np.diag(scale), pixels])
        face = cv2.warpAffine(face, matrix, face.shape[:2], borderMode=cv2.BORDER_REFLECT_101)
        if self.table is not None:
            face = cv2.LUT(face, self.table)
        return face
