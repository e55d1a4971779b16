"""Lite landmark generator: narrower, and relative to the references' own lips and jaws. Not in the paper."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from face.landmarks import NUM_JAW, NUM_LIP, NUM_POSE
from models.configs import LandmarkGeneratorConfig
from models.landmark_generator import LandmarkGenerator, LandmarkOutput
from models.layers import zero_init

# Fractions of the crop's side.
DEVIATION = 0.02  # typical deviation of lips and jaws from the references' mean
TURN = 0.1  # unit of the head's turn, chosen so that the common learning rate suits its layer


@dataclass(frozen=True)
class LiteLandmarkGeneratorConfig(LandmarkGeneratorConfig):
    """Sizes of the lite landmark generator."""

    num_frames: int = 15
    width: int = 160
    feed_forward: int = 320
    norm_first: bool = True
    audio_width: int = 8
    landmark_width: int = 2


class LiteLandmarkGenerator(LandmarkGenerator):
    """Predicts how lips and jaws differ from the references', moved to the frame's pose; initially not at all."""

    def __init__(self, config: LiteLandmarkGeneratorConfig):
        super().__init__(config)
        # Horizontal only: the upper face's vertical motion would leak how far the original mouth is open.
        self.turn = nn.Linear(NUM_POSE, NUM_JAW + NUM_LIP, bias=False)
        for layer in (self.lip_head, self.jaw_head, self.turn):
            zero_init(layer)

    def predict(
        self, audio_tokens: Tensor, pose_tokens: Tensor, reference_tokens: Tensor, pose: Tensor, reference: Tensor
    ) -> LandmarkOutput:
        """Adds the paper's prediction, in units of the typical deviation, to the references' mean lips and jaws."""
        lip, jaw = super().predict(audio_tokens, pose_tokens, reference_tokens, pose, reference)
        mean_pose, content = move_with_pose(reference, pose).split([NUM_POSE, NUM_JAW + NUM_LIP], dim=-2)
        unexplained = mean_pose[..., 0] - pose[..., 0].float()  # what no affine map explains: the head's turn
        with torch.autocast(pose.device.type, enabled=False):
            shift = self.turn(unexplained / TURN)  # (B, T, 57)
        content = content - F.pad(shift[..., None], (0, 1))
        resting_jaw, resting_lip = content.split([NUM_JAW, NUM_LIP], dim=-2)
        return LandmarkOutput(DEVIATION * lip + resting_lip, DEVIATION * jaw + resting_jaw)


def move_with_pose(reference: Tensor, pose: Tensor) -> Tensor:
    """Moves each reference by the affine map that best fits its pose to the frame's, and averages the references.

    Reference (1 or B, N, 131, 2) and pose (B, T, 74, 2) -> (B, T, 131, 2).
    """
    with torch.autocast(reference.device.type, enabled=False):
        points = F.pad(reference.float(), (0, 1), value=1.0)  # (B, N, 131, 3)
        source = points[..., :NUM_POSE, :]
        normal = source.mT @ source + 1e-6 * torch.eye(3, device=source.device)
        # Least squares: map = inverse(source^T source) source^T pose. All moved points are linear in the pose.
        from_pose = points @ torch.linalg.solve(normal, source.mT)  # (B, N, 131, 74)
        return from_pose.mean(1, keepdim=True) @ pose.float()
