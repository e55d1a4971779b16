"""Both networks on one device, for dubbing and evaluation: arrays in, arrays out."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from face.crop import lower_half, sides
from face.landmarks import CONTENT, POSE_SLICE, with_content
from face.references import nearest_references
from face.sketch import draw_sketch
from media.audio import FPS, first_columns, mel_windows
from media.timing import window_frames
from models import load
from models.landmark_generator import LandmarkGenerator
from models.lite.renderer import LiteRenderer
from models.motion_field import ReferenceFeatures
from models.renderer import Renderer
from runtime.command_line import SettingError, at_least_one
from runtime.device import computes_in_bf16, keep_memory, pick_device

NUM_LANDMARK_REFERENCES = 15  # N_l of the paper
CHUNK = 64  # frames that stage 1 predicts at once
REFERENCES_AT_ONCE = 16  # encoded at once: encoding all of them together takes too much memory
LANDMARK_FILE = "landmark_generator.safetensors"
RENDERER_FILE = "renderer.safetensors"
SHIPPED_WEIGHTS = Path(__file__).parent / "checkpoints" / "lite"


@dataclass(frozen=True, kw_only=True)
class DubConfig:
    """Settings for dubbing a video.

    Raises:
        SettingError: a number is out of range.
    """

    device: str = "auto"
    """cpu, cuda, cuda:1, mps, or auto for the fastest available."""
    num_references: int = 5
    """Reference images that the renderer uses for each frame. More are slower; Table 5 shows little gain above 5."""
    reference_share: float | None = None
    """Share of a shot's frames to use as references instead (paper: 0.2). Memory grows with the shot's length."""
    num_candidates: int | None = 100
    """Frames to choose each frame's nearest references from; None: as many as in training. Lite weights only."""
    face: str = "largest"
    """Face to dub: largest, left, right, a number from the left (0, 1, ...), or a point x,y of the first frame."""
    keep_hands: bool = True
    """Leave frames unchanged in which a hand covers the mouth."""
    keep_spans: tuple[tuple[float, float], ...] = ()
    """Spans of the video that stay unchanged, as start and end in seconds: 3.5 5, or 3.5 5 20 21.5 for two."""
    keep_fps: bool = False
    """Keep the video's own frame rate instead of the networks' 25 frames per second."""
    keep_length: bool = False
    """Continue to the end of a video that is longer than the sound; the rest stays unchanged and is silent."""
    start: float = 0.0
    """Second of the video at which the speech starts; the frames before it stay unchanged and are silent."""
    panel: bool = False
    """Show landmarks, sketch, warped reference and drawn face beside the result, to find the cause of a fault."""
    half: bool = True
    """Draw in bfloat16 where this is faster; the difference is not visible."""
    detail: bool = True
    """Add fine detail from the references to faces larger than the renderer's size. Lite weights only."""
    crf: int = 17
    """Constant rate factor of H.264: 0 is the best quality, 51 the worst; 6 more halve the size of the file."""
    lossless: bool = False
    """Write a lossless video (H.264 in RGB; large), so that scores do not measure the codec."""
    batch_size: int = 2
    """Frames drawn at once. More are faster on a GPU."""
    track_cache: Path | None = None
    """Folder for the face tracks of videos, so that dubbing a video again needs no second detection."""

    def __post_init__(self) -> None:
        at_least_one(num_references=self.num_references, num_candidates=self.num_candidates, batch_size=self.batch_size)
        if not 0 <= self.start < math.inf:
            raise SettingError("start", f"{self.start} is not a number of seconds from 0")
        for start, end in self.keep_spans:
            if not 0 <= start < end < math.inf:
                raise SettingError("keep_spans", f"{start} to {end} is not a span; give its start and end in seconds")
        if self.reference_share is not None and not 0 < self.reference_share <= 1:
            raise SettingError("reference_share", f"{self.reference_share} is not above 0 and at most 1")
        if not 0 <= self.crf <= 51:
            raise SettingError("crf", f"{self.crf} is not between 0 and 51")

    @classmethod
    def for_tables(cls) -> Self:
        """Settings for the paper's tables: references and crops as in training, float32, lossless videos."""
        return cls(num_candidates=None, keep_hands=False, half=False, detail=False, lossless=True)


class References(NamedTuple):
    """M encoded reference frames."""

    features: ReferenceFeatures
    landmarks_in_crop: ndarray  # (M, 131, 2)
    images: ndarray  # (M, S, S, 3) uint8 RGB
    large_images: ndarray | None = None  # (M, k*S, k*S, 3) uint8 RGB, the source of detail for drawn faces


def batches(indices: ndarray, size: int) -> list[ndarray]:
    """Splits indices (n,) into parts of `size`; the last may be shorter."""
    return np.split(indices, range(size, len(indices), size))


def to_tensor(images: ndarray) -> Tensor:
    """(..., H, W, 3) uint8 or float in [0, 255] -> (..., 3, H, W) float32 in [0, 1]."""
    channels_first = np.moveaxis(images, -1, -3)
    return torch.from_numpy(np.ascontiguousarray(channels_first, dtype=np.float32)) / 255


def load_landmark_generator(folder: str | Path) -> LandmarkGenerator:
    """Loads the network of stage 1 from a folder. Raises the UserErrors of `Networks.from_weights`."""
    return load(Path(folder) / LANDMARK_FILE, "landmark")


class LandmarkPredictor:
    """Stage 1 on one device."""

    def __init__(self, landmark_generator: LandmarkGenerator, device: str):
        """Raises UserError if this machine lacks the device."""
        self.device = pick_device(device)
        keep_memory()
        self.landmark_generator = landmark_generator.to(self.device).eval()

    @torch.inference_mode()
    def predict_landmarks(
        self,
        landmarks_in_crop: ndarray,
        references: ndarray,
        mel: ndarray,
        fps: float = FPS,
        first: int = 0,
    ) -> ndarray:
        """Predicts lips and jaw of a clip from its sound and keeps the pose (stage 1, paper section 3.1).

        Each frame is predicted in every window that contains it, and the predictions are averaged. (The released code
        keeps only one of them, which gives more jitter.)

        Args:
            landmarks_in_crop: (F, 131, 2); only the pose prior is used.
            references: (N, 131, 2) reference landmarks in crop coordinates.
            mel: (80, columns) of the sound; frame f is shown at (first + f) / fps seconds.
            fps: frames per second of the landmarks.
            first: position of the first of these frames, counted from the start of the sound.

        Returns:
            (F, 131, 2) landmarks with the predicted jaw and lips, in crop coordinates.
        """
        network = self.landmark_generator
        num_frames = len(landmarks_in_crop)
        window = network.config.num_frames
        frames = window_frames(num_frames, window, fps)  # (F, T)
        shown_at = (first + np.arange(num_frames)) * FPS / fps  # (F,) in 1/25 s
        moments = shown_at[:, None] + np.arange(window) - window // 2  # (F, T)
        reference = torch.tensor(references).float().to(self.device)[None]  # (1, N, 131, 2)
        reference_tokens = network.encode_reference(reference)
        pose = torch.tensor(landmarks_in_crop[:, POSE_SLICE]).float().to(self.device)  # (F, 74, 2)
        pose_tokens = network.encode_pose(pose[None])[0]  # (F, d)
        total = np.zeros_like(landmarks_in_crop[:, CONTENT], dtype=np.float64)
        for chunk in batches(np.arange(num_frames), CHUNK):
            windows = torch.from_numpy(frames[chunk])  # (B, T)
            audio = self._encode_audio(mel, moments[chunk])
            lip, jaw = network.predict(audio, pose_tokens[windows], reference_tokens, pose[windows], reference)
            content = torch.cat([jaw, lip], dim=2).cpu().double()  # (B, T, 57, 2); Apple's GPUs have no float64
            np.add.at(total, frames[chunk], content.numpy())
        windows_of_frame = np.bincount(frames.ravel())  # (F,) number of windows that contain each frame
        return with_content(landmarks_in_crop, total / windows_of_frame[:, None, None])

    def _encode_audio(self, mel: ndarray, moments: ndarray) -> Tensor:
        """Returns the audio tokens (B, T, d) of the sound at `moments` (B, T), in 1/25 s.

        Windows overlap, and all moments between two mel columns share a mel window, so each mel window is encoded once.
        """
        columns = first_columns(moments)
        _, first_uses, indices = np.unique(columns, return_index=True, return_inverse=True)
        windows = torch.from_numpy(mel_windows(mel, moments.ravel()[first_uses]))  # (K, 1, 80, 16)
        tokens = self.landmark_generator.encode_audio(windows.to(self.device)[None])[0]  # (K, d)
        return tokens[torch.from_numpy(indices.reshape(moments.shape))]


class Networks(LandmarkPredictor):
    """Both networks on one device. Subclasses may replace either stage: see evaluation/baselines.py.

    Attributes:
        config: the settings.
        device: the device of the networks.
        size: side of the face crops in pixels.
        num_candidates: number of reference frames to encode.
        detail: whether to pass larger images to `encode_references`, too.
        half: whether the renderer computes in bfloat16.
    """

    def __init__(self, landmark_generator: LandmarkGenerator, renderer: Renderer, config: DubConfig):
        """Moves both networks to the device of `config`. Raises UserError if this machine lacks it."""
        super().__init__(landmark_generator, config.device)
        self.config = config
        self.renderer: Any = renderer.to(self.device).eval()
        self.size = renderer.config.size
        self.half = config.half and computes_in_bf16(self.device)
        self.detail = False
        self.num_candidates = config.num_references
        if isinstance(renderer, LiteRenderer):
            self.detail = config.detail and renderer.config.use_warping
            candidates = config.num_candidates or renderer.config.candidates
            self.num_candidates = max(config.num_references, candidates)

    @classmethod
    def from_weights(cls, folder: str | Path = SHIPPED_WEIGHTS, config: DubConfig | None = None) -> Self:
        """Loads both networks from a folder.

        Raises:
            UserError: a file is missing, damaged, of the other stage, or has other crop, landmark or mel settings.
        """
        landmark_generator = load_landmark_generator(folder)
        renderer = load(Path(folder) / RENDERER_FILE, "render")
        return cls(landmark_generator, renderer, config or DubConfig())

    def draw_sketches(self, landmarks_in_crop: ndarray, boxes: ndarray, frames: ndarray) -> ndarray:
        """Draws the sketches of some frames, each frame once although windows overlap.

        Args:
            landmarks_in_crop: (F, 131, 2).
            boxes: (F, 4) face boxes, which give the aspect ratio.
            frames: (...) indices of the frames to draw.

        Returns:
            (..., S, S, 3) float32 in [0, 224].
        """
        drawn, indices = np.unique(frames, return_inverse=True)
        widths, heights = sides(boxes[drawn]).T.tolist()
        faces = zip(landmarks_in_crop[drawn], heights, widths, strict=True)
        sketches = np.stack([draw_sketch(*face, self.size) for face in faces])
        return sketches[indices.reshape(frames.shape)]

    def autocast(self) -> torch.autocast:
        """Returns a context in which the renderer computes in bfloat16 if `half` is set."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.half)

    @torch.inference_mode()
    def encode_references(
        self,
        images: ndarray,
        landmarks_in_crop: ndarray,
        boxes: ndarray,
        large_images: ndarray | None = None,
    ) -> References:
        """Computes the features of reference images, once for all frames that use them.

        Args:
            images: (M, S, S, 3) uint8 RGB face crops.
            landmarks_in_crop: (M, 131, 2) float32 of the same frames.
            boxes: (M, 4) of the same frames.
            large_images: (M, k*S, k*S, 3) uint8, the same crops at a higher resolution; faces are then drawn at that
                size.
        """
        parts = []
        for chunk in batches(np.arange(len(images)), REFERENCES_AT_ONCE):
            sketches = self.draw_sketches(landmarks_in_crop, boxes, chunk)
            with self.autocast():
                parts.append(
                    self.renderer.encode_references(
                        to_tensor(images[chunk]).to(self.device)[None],
                        to_tensor(sketches).to(self.device)[None],
                        torch.from_numpy(landmarks_in_crop[chunk]).to(self.device)[None],
                    )
                )
        features = ReferenceFeatures(*(torch.cat(tensors, dim=1) for tensors in zip(*parts, strict=True)))
        return References(features, landmarks_in_crop, images, large_images)

    @torch.inference_mode()
    def draw_faces(
        self,
        faces: ndarray,
        landmarks_in_crop: ndarray,
        sketches: ndarray,
        references: References,
        mel: ndarray,
    ) -> tuple[ndarray, ndarray]:
        """Draws a batch of faces (stage 2, paper section 3.2).

        Args:
            faces: (B, S, S, 3) uint8 RGB crops; the lower half is masked here, so the network never sees it.
            landmarks_in_crop: (B, 131, 2) float32 of the same frames, with the lips and jaws to draw.
            sketches: (B, T, S, S, 3) float in [0, 224], of the window around each frame.
            references: from `encode_references`.
            mel: (B, 1, 80, 16) float32, the mel window of each frame.

        Returns:
            The drawn faces, (B, S, S, 3) or as large as the references' large images, and the aggregated warped
            references (B, S, S, 3); both float32 RGB in [0, 1].
        """
        features = references.features
        large_images = references.large_images
        if isinstance(self.renderer, LiteRenderer):
            nearest = nearest_references(
                landmarks_in_crop, references.landmarks_in_crop, self.config.num_references
            )  # (B, N)
            features = features.choose(torch.from_numpy(nearest).to(self.device))
            if large_images is not None:
                large_images = large_images[nearest]  # (B, N, k*S, k*S, 3)
        masked_faces = to_tensor(faces)  # (B, 3, S, S)
        masked_faces[:, :, lower_half(self.size)] = 0
        with self.autocast():
            output = self.renderer.render(
                masked_faces.to(self.device),
                to_tensor(sketches).to(self.device),
                features,
                torch.from_numpy(mel).to(self.device),
                torch.from_numpy(landmarks_in_crop).to(self.device),
            )
        drawn = output.face
        if large_images is not None:
            drawn = self.renderer.sharpen(output, to_tensor(large_images).to(self.device))
        return to_images(drawn), to_images(output.warped_reference)


def to_images(batch: Tensor) -> ndarray:
    """(B, 3, H, W) -> (B, H, W, 3) float32."""
    return batch.float().cpu().permute(0, 2, 3, 1).numpy()
