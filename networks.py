"""Both networks on one device, as dubbing and evaluation use them: arrays in, arrays out."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch

from face import fingerprint
from face.landmarks import CONTENT, POSE_SLICE, with_content
from face.references import nearest_references
from face.sketch import draw_sketch
from media import audio as sound
from media.timing import window_frames
from models import load
from models.landmark_generator import LandmarkGenerator
from models.lite.renderer import LiteRenderer
from models.motion_field import ReferenceFeatures
from models.renderer import Renderer
from runtime import command_line
from runtime.command_line import UserError
from runtime.device import computes_in_bf16, keep_memory, pick_device

NUM_LANDMARK_REFERENCES = 15  # N_l of the paper
NUM_REFERENCES = 5  # pictures that the renderer looks at for a frame
BATCH_SIZE = 4  # frames drawn at once
WEIGHT_FILES = ("landmark_generator.safetensors", "renderer.safetensors")
SHIPPED_WEIGHTS = Path(__file__).parent / "checkpoints" / "lite"


def batches(indices: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (indices[start : start + size] for start in range(0, len(indices), size))


def to_tensor(images: np.ndarray) -> torch.Tensor:
    """(..., H, W, 3) uint8 or 0..255 float -> (..., 3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(images, -1, -3), dtype=np.float32)) / 255


class References(NamedTuple):
    """What is kept of M reference frames."""

    features: ReferenceFeatures
    landmarks_in_crop: np.ndarray  # (M, 131, 2)
    pictures: np.ndarray | None = None  # (M, k*S, k*S, 3) uint8 RGB, to take detail from


class Networks:
    """Both networks on one device."""

    def __init__(
        self, landmark_generator: LandmarkGenerator, renderer: Renderer, device: str = "auto",
        num_references: int = NUM_REFERENCES, batch_size: int = BATCH_SIZE, num_candidates: int | None = None,
        detail: bool = False, half: bool = False,
    ) -> None:  # fmt: skip
        """`num_candidates` None: as many as in training. The tables keep to that, and to what the network draws."""
        # 0: the same references for every frame, none is chosen
        trained = renderer.config.candidates if isinstance(renderer, LiteRenderer) else 0
        candidates = trained if num_candidates is None or not trained else num_candidates
        command_line.at_least(1, num_references=num_references, num_candidates=num_candidates, batch_size=batch_size)
        self.device = pick_device(device)
        if self.device.type == "cpu":
            keep_memory()
        self.landmark_generator = landmark_generator.to(self.device).eval()
        self.renderer = renderer.to(self.device).eval()
        self.num_references = num_references
        self.batch_size = batch_size
        self.num_candidates = max(num_references, candidates)
        self.detail = detail and trained > 0 and renderer.config.use_warping
        self.half = half and computes_in_bf16(self.device)
        self.size = renderer.config.size

    @classmethod
    def from_weights(cls, folder: Path, device: str = "auto", **options: Any) -> Self:
        """Loads both networks from a folder.

        Raises:
            UserError: a file is missing, broken, of the other stage, or made with other crop, landmark or mel settings.
        """
        if not Path(folder).is_dir():
            raise UserError(f"--weights {folder}: no folder; give one that holds {' and '.join(WEIGHT_FILES)}")
        paths = [Path(folder) / name for name in WEIGHT_FILES]
        landmark_generator, renderer = load(paths[0], stage="landmark"), load(paths[1], stage="render")
        # Landmarks are relative to the crop: stage 1 serves any size.
        fingerprint.check(landmark_generator.settings, fingerprint.current(), f"--weights: {paths[0]}")
        fingerprint.check(renderer.settings, fingerprint.current(renderer.config.size), f"--weights: {paths[1]}")
        return cls(landmark_generator, renderer, device, **options)

    @torch.inference_mode()
    def predict_landmarks(
        self, landmarks_in_crop: np.ndarray, references: np.ndarray, mel: np.ndarray, fps: float = sound.FPS,
        first: int = 0,
    ) -> np.ndarray:  # fmt: skip
        """Stage 1 over a clip: the pose stays, lip and jaw come from the sound (paper section 3.2).

        Every frame is predicted in each of the windows that hold it, and the predictions are averaged (the released
        code keeps one of them, which shakes more).

        Args:
            landmarks_in_crop: (F, 131, 2) of which only the pose prior is read.
            references: (N, 131, 2) reference landmarks in crop coordinates.
            mel: (80, columns) of the sound; frame f is heard at (first + f) / fps seconds.
            fps: frames a second of the landmarks.
            first: frames of the video before these.

        Returns:
            (F, 131, 2) landmarks with the predicted jaw and lips, in crop coordinates.
        """
        num_frames, window = len(landmarks_in_crop), self.landmark_generator.config.num_frames
        frames = window_frames(num_frames, window, fps)  # (F, T)
        heard_at = (first + np.arange(num_frames)) * sound.FPS / fps  # (F,) in 1/25 s
        times = heard_at[:, None] + np.arange(window) - window // 2  # (F, T)
        # Neighbouring windows share most moments, and moments between the same two columns sound alike.
        _, places, heard = np.unique(sound.first_columns(times.ravel()), return_index=True, return_inverse=True)
        moments, heard = times.ravel()[places], torch.from_numpy(heard.reshape(times.shape))
        pose = torch.tensor(landmarks_in_crop[:, POSE_SLICE]).float()  # (F, 74, 2)
        reference = torch.tensor(references).float().to(self.device)[None]  # (1, N, 131, 2)
        network = self.landmark_generator
        reference_tokens = network.encode_reference(reference)
        mels = (torch.from_numpy(sound.mel_windows(mel, chunk)) for chunk in batches(moments, 64))
        audio = torch.cat([network.encode_audio(m.to(self.device)[None])[0] for m in mels])  # (moments, d)
        posture = torch.cat([network.encode_pose(p.to(self.device)[None])[0] for p in pose.split(64)])  # (F, d)
        total = np.zeros((num_frames, CONTENT.stop - CONTENT.start, 2))
        count = np.bincount(frames.ravel())[:, None, None]  # windows that hold each frame, (F, 1, 1)
        for chunk in batches(np.arange(num_frames), 64):
            seen = torch.from_numpy(frames[chunk])
            poses = pose[seen].to(self.device)  # (B, T, 74, 2)
            lip, jaw = network.predict(audio[heard[chunk]], posture[seen], reference_tokens, poses, reference)
            content = torch.cat([jaw, lip], dim=2).cpu().double().numpy()  # (B, T, 57, 2); Apple's GPU has no float64
            np.add.at(total, frames[chunk], content)
        return with_content(landmarks_in_crop, total / count)

    def sketch(self, landmarks_in_crop: np.ndarray, box: np.ndarray) -> np.ndarray:
        """Of landmarks (131, 2) in a box (4,): (S, S, 3) float32, 0..224."""
        return draw_sketch(landmarks_in_crop, int(box[3] - box[1]), int(box[2] - box[0]), self.size)

    @torch.inference_mode()
    def encode_references(
        self, images: np.ndarray, landmarks_in_crop: np.ndarray, boxes: np.ndarray, pictures: np.ndarray | None = None
    ) -> References:
        """Features of the reference images, computed once a video.

        Args:
            images: (M, S, S, 3) uint8 RGB face crops.
            landmarks_in_crop: (M, 131, 2) of the same frames.
            boxes: (M, 4) of the same frames.
            pictures: the same crops, larger (M, k*S, k*S, 3); faces are then drawn at that size.
        """
        sketches = np.stack([self.sketch(*of) for of in zip(landmarks_in_crop, boxes, strict=True)])
        given = (to_tensor(images), to_tensor(sketches), torch.tensor(landmarks_in_crop).float())
        features = self.renderer.encode_references(*(x.to(self.device)[None] for x in given))
        return References(features, landmarks_in_crop, pictures)

    @torch.inference_mode()
    def draw_faces(
        self, faces: np.ndarray, landmarks_in_crop: np.ndarray, sketches: np.ndarray, references: References,
        mel: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """Stage 2 for a batch of frames (paper section 3.3).

        Args:
            faces: (B, S, S, 3) uint8 RGB crops; the lower half is masked here and never seen by the network.
            landmarks_in_crop: (B, 131, 2) of the same frames, with the lips and jaws to draw.
            sketches: (B, T, S, S, 3) float, 0..224, of the window around each frame.
            references: from `encode_references`.
            mel: (B, 1, 80, 16) windows.

        Returns:
            drawn faces (of the references' larger size, if they have one) and aggregated warped references
            (B, S, S, 3), both float32 RGB in [0, 1].
        """
        features, pictures = references.features, references.pictures
        if isinstance(self.renderer, LiteRenderer):
            near = nearest_references(landmarks_in_crop, references.landmarks_in_crop, self.num_references)
            features = features.choose(torch.from_numpy(near).to(self.device))
            pictures = None if pictures is None else pictures[near]
        masked_target = to_tensor(faces)  # (B, 3, S, S)
        masked_target[:, :, self.size // 2 :] = 0
        given = (masked_target, to_tensor(sketches), torch.from_numpy(mel), torch.tensor(landmarks_in_crop).float())
        target, sketch, heard, points = (x.to(self.device) for x in given)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            output = self.renderer.render(target, sketch, features, heard, points)
        face = output.face
        if pictures is not None:
            assert isinstance(self.renderer, LiteRenderer)
            face = self.renderer.sharpen(output, to_tensor(pictures).to(self.device))
        face, warped = (x.float().cpu().permute(0, 2, 3, 1).numpy() for x in (face, output.warped_reference))
        return face, warped
