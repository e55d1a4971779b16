"""Stage 1, audio to landmarks: lip and jaw from sound, pose and reference faces (paper, section 3.1)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from face.landmarks import NUM_JAW, NUM_LIP, NUM_POSE
from models.layers import ConvBlock, audio_encoder, zeroed

DEVIATION = 0.02  # of the crop's side: how far lips and jaws usually are from the references' mean
TURN = 0.1  # of the crop's side: the unit of the head's turn, in which a learning rate suits it


@dataclass(frozen=True)
class LandmarkGeneratorConfig:
    """Sizes of the landmark generator. The defaults are those of the released weights."""

    num_frames: int = 5
    """Frames of a window, T."""
    width: int = 512
    """Width of the tokens, d."""
    layers: int = 4
    """Transformer layers."""
    heads: int = 4
    feed_forward: int = 1024
    dropout: float = 0.1
    norm_first: bool = False
    """True: the paper's equation 7, and a final norm. False: as the released weights."""
    architecture: Literal["transformer", "lstm"] = "transformer"
    """lstm: the bidirectional LSTM of Table 3, with about as many parameters (at feed_forward = 2 * width)."""
    audio_width: int = 32
    """First channels of the audio encoder."""
    landmark_width: int = 4
    """First channels of the pose and the reference encoder."""
    reference_skip: bool = False
    """Not in the paper: the network predicts the difference to the references' lips and jaws moved with the pose and
    turned with the head, and starts from zero difference."""

    @classmethod
    def lite(cls) -> "LandmarkGeneratorConfig":
        """For CPUs and small data: the same architecture, narrower."""
        return cls(
            num_frames=15, width=160, feed_forward=320, audio_width=8, landmark_width=2, norm_first=True,
            reference_skip=True,
        )  # fmt: skip


class LandmarkOutput(NamedTuple):
    """Landmarks in the crop's coordinates: x, y in [0, 1]."""

    lip: Tensor  # (B, T, 40, 2)
    jaw: Tensor  # (B, T, 17, 2)


class LandmarkGenerator(nn.Module):
    """Predicts the lips and the jaw of T neighbouring frames. The number of reference faces is free."""

    settings: Mapping[str, str | int | float] = {}  # landmark, mel and crop settings of its training
    extra: Mapping[str, Any] = {}  # what else the weight file says: step, ...

    def __init__(self, config: LandmarkGeneratorConfig = LandmarkGeneratorConfig()):
        super().__init__()
        self.config = c = config
        self.audio_encoder = audio_encoder(c.audio_width, c.width, torch.tanh)
        self.audio_encoder.to(memory_format=torch.channels_last)  # on CPU a quarter faster
        self.reference_encoder = _landmark_encoder(c.landmark_width, c.width, first_stride=2, last_residual=False)
        self.pose_encoder = _landmark_encoder(c.landmark_width, c.width, first_stride=1, last_residual=True)
        self.token_norm = nn.LayerNorm(c.width)
        self.fusion = (_TransformerFusion if c.architecture == "transformer" else _LSTMFusion)(c)
        self.lip_head = nn.Linear(self.fusion.width, NUM_LIP * 2)
        self.jaw_head = nn.Linear(self.fusion.width, NUM_JAW * 2)
        if c.reference_skip:
            for head in (self.lip_head, self.jaw_head):
                zeroed(head)
            # Sideways only: up and down the upper face would tell how far the old mouth is open.
            self.turn = zeroed(nn.Linear(NUM_POSE, NUM_JAW + NUM_LIP, bias=False))

    def encode_reference(self, reference: Tensor) -> Tensor:
        """Once a video: reference faces (B, N, 131, 2) -> tokens (B, N, d)."""
        return self._tokens(self.reference_encoder, reference.transpose(-1, -2))

    def forward(self, mel: Tensor, pose: Tensor, reference: Tensor) -> LandmarkOutput:
        """Predicts T frames at once.

        Args:
            mel: (B, T, 1, 80, 16), each frame's window
            pose: (B, T, 74, 2), landmarks in the crop, in [0, 1]
            reference: (B, N, 131, 2), the same of N other frames, in the order pose, jaw, lip
        """
        tokens = self.encode_audio(mel), self.encode_pose(pose), self.encode_reference(reference)
        return self.predict(*tokens, pose, reference)

    def encode_audio(self, mel: Tensor) -> Tensor:
        """Mel windows (B, T, 1, 80, 16) -> tokens (B, T, d), each from its own window: computed once a frame."""
        return self._tokens(self.audio_encoder, mel)

    def encode_pose(self, pose: Tensor) -> Tensor:
        """Pose landmarks (B, T, 74, 2) -> tokens (B, T, d), likewise."""
        return self._tokens(self.pose_encoder, pose.transpose(-1, -2))

    def predict(
        self, audio: Tensor, posture: Tensor, reference_tokens: Tensor, pose: Tensor, reference: Tensor
    ) -> LandmarkOutput:
        """From tokens (B, T, d) of sound and pose and (1 or B, N, d) of the references; the rest as in `forward`."""
        for_lip, for_jaw = self.fusion(reference_tokens.expand(len(audio), -1, -1), audio, posture)
        lip = self.lip_head(for_lip).float().unflatten(-1, (NUM_LIP, 2))
        jaw = self.jaw_head(for_jaw).float().unflatten(-1, (NUM_JAW, 2))
        if self.config.reference_skip:
            moved_pose, still = move_with_pose(reference, pose).split([NUM_POSE, NUM_JAW + NUM_LIP], dim=-2)
            with torch.autocast(pose.device.type, enabled=False):
                sideways = self.turn((moved_pose[..., 0] - pose[..., 0].float()) / TURN)  # (B, T, 57)
            still_jaw, still_lip = (still - F.pad(sideways[..., None], (0, 1))).split([NUM_JAW, NUM_LIP], dim=-2)
            lip, jaw = DEVIATION * lip + still_lip, DEVIATION * jaw + still_jaw
        return LandmarkOutput(lip, jaw)

    def _tokens(self, encoder: nn.Module, x: Tensor) -> Tensor:
        return self.token_norm(encoder(x.flatten(0, 1)).flatten(1)).unflatten(0, x.shape[:2])


def move_with_pose(reference: Tensor, pose: Tensor) -> Tensor:
    """The mean of the reference faces, each moved by the affine map that best takes its pose to the frame's.

    Reference (1 or B, N, 131, 2) and pose (B, T, 74, 2) -> (B, T, 131, 2). How its own pose differs from the frame's
    is what no flat map explains: the turn of the head.
    """
    with torch.autocast(reference.device.type, enabled=False):
        points = F.pad(reference.float(), (0, 1), value=1.0)  # (B, N, 131, 3)
        source = points[..., :NUM_POSE, :]
        normal = source.transpose(-1, -2) @ source + 1e-6 * torch.eye(3, device=source.device)
        # Least squares: map = inverse(source^T source) source^T pose, so that all points are linear in the pose.
        from_pose = points @ torch.linalg.solve(normal, source.transpose(-1, -2))  # (B, N, 131, 74)
        return from_pose.mean(1, keepdim=True) @ pose.float()


def _landmark_encoder(width: int, out: int, first_stride: int, last_residual: bool) -> nn.Sequential:
    """Landmarks (B, 2, K) -> (B, out, 1): `width` channels first, doubled six times."""
    channels = width
    blocks = [ConvBlock(2, channels, dimensions=1)]
    for doubling in range(6):
        channels *= 2
        stride = first_stride if doubling == 0 else 2
        residuals = 1 if doubling == 5 and not last_residual else 2
        blocks.append(ConvBlock(channels // 2, channels, stride=stride, dimensions=1))
        blocks.extend(ConvBlock(channels, channels, dimensions=1, residual=True) for _ in range(residuals))
    blocks.append(ConvBlock(channels, out, padding=0, dimensions=1))
    blocks.append(ConvBlock(out, out, kernel=1, padding=0, dimensions=1, residual=last_residual, activation=torch.tanh))
    return nn.Sequential(*blocks)


class _TransformerFusion(nn.Module):
    """Self-attention over reference, audio and pose tokens (paper, equations 4 to 8)."""

    def __init__(self, config: LandmarkGeneratorConfig):
        super().__init__()
        self.width = config.width
        self.type_embedding = nn.Parameter(torch.randn(3, config.width))  # pose, audio, reference
        self.dropout = nn.Dropout(config.dropout)
        layer = nn.TransformerEncoderLayer(
            config.width, config.heads, config.feed_forward, config.dropout, batch_first=True,
            norm_first=config.norm_first,
        )  # fmt: skip
        final_norm = nn.LayerNorm(config.width) if config.norm_first else None
        self.encoder = nn.TransformerEncoder(layer, config.layers, final_norm, enable_nested_tensor=False)

    def forward(self, reference: Tensor, audio: Tensor, pose: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, N, d), (B, T, d), (B, T, d) -> states for the lip and for the jaw, (B, T, d) each."""
        frames = audio.shape[1]
        position = sinusoidal_positions(frames, self.width, audio.device)
        pose_type, audio_type, reference_type = self.type_embedding
        tokens = [reference + reference_type, audio + position + audio_type, pose + position + pose_type]
        states = self.encoder(self.dropout(torch.cat(tokens, dim=1)))
        return states[:, -2 * frames : -frames], states[:, -frames:]


class _LSTMFusion(nn.Module):
    """One bidirectional LSTM layer over the frames; each sees the mean reference token (paper, Table 3)."""

    def __init__(self, config: LandmarkGeneratorConfig):
        super().__init__()
        self.width = 2 * config.width
        self.lstm = nn.LSTM(3 * config.width, config.width, batch_first=True, bidirectional=True)

    def forward(self, reference: Tensor, audio: Tensor, pose: Tensor) -> tuple[Tensor, Tensor]:
        """As `_TransformerFusion`, with states (B, T, 2d)."""
        face = reference.mean(1, keepdim=True).expand_as(audio)
        states = self.lstm(torch.cat([pose, audio, face], dim=-1))[0]
        return states, states


def sinusoidal_positions(length: int, width: int, device: torch.device | None = None) -> Tensor:
    """(length, width) table: even columns sine, odd columns cosine, base 10000."""
    rate = torch.exp(torch.arange(0, width, 2, device=device) * (-math.log(10000.0) / width))
    angle = torch.arange(length, device=device)[:, None] * rate
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)
