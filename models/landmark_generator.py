"""Stage 1, audio to landmarks: lip and jaw from audio, pose prior and reference landmarks (paper, section 3.1)."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from face.landmarks import NUM_JAW, NUM_LIP
from models.configs import LandmarkGeneratorConfig
from models.layers import audio_encoder, encoder


class LandmarkOutput(NamedTuple):
    """Landmarks: x, y in [0, 1] of the crop."""

    lip: Tensor  # (B, T, 40, 2)
    jaw: Tensor  # (B, T, 17, 2)


class LandmarkGenerator(nn.Module):
    """Predicts the lip and jaw landmarks of T adjacent frames from any number N of reference faces."""

    def __init__(self, config: LandmarkGeneratorConfig):
        super().__init__()
        self.config = config
        self.audio_encoder = audio_encoder(config.audio_width, config.width, torch.tanh)
        self.audio_encoder.to(memory_format=torch.channels_last)  # a quarter faster on CPU
        self.reference_encoder = _landmark_encoder(config, first_stride=2, last_residual=False)
        self.pose_encoder = _landmark_encoder(config, first_stride=1, last_residual=True)
        self.token_norm = nn.LayerNorm(config.width)
        fusion = _TransformerFusion if config.architecture == "transformer" else _LSTMFusion
        self.fusion = fusion(config)
        self.lip_head = nn.Linear(self.fusion.width, NUM_LIP * 2)
        self.jaw_head = nn.Linear(self.fusion.width, NUM_JAW * 2)

    def forward(self, mel: Tensor, pose: Tensor, reference: Tensor) -> LandmarkOutput:
        """Predicts T frames at once.

        Args:
            mel: m (B, T, 1, 80, 16), the mel window of each frame
            pose: l^p (B, T, 74, 2), pose prior landmarks, x, y in [0, 1] of the crop
            reference: l^r (B, N, 131, 2), all landmarks of N other frames, in the order pose, jaw, lip
        """
        audio_tokens = self.encode_audio(mel)
        pose_tokens = self.encode_pose(pose)
        reference_tokens = self.encode_reference(reference)
        return self.predict(audio_tokens, pose_tokens, reference_tokens, pose, reference)

    def encode_audio(self, mel: Tensor) -> Tensor:
        """Equation 1: mel windows (B, T, 1, 80, 16) -> embeddings a (B, T, d), one per frame."""
        return self._embed(self.audio_encoder, mel)

    def encode_pose(self, pose: Tensor) -> Tensor:
        """Equation 2: pose prior landmarks (B, T, 74, 2) -> embeddings p (B, T, d), one per frame."""
        return self._embed(self.pose_encoder, pose.mT)

    def encode_reference(self, reference: Tensor) -> Tensor:
        """Equation 3: reference landmarks (B, N, 131, 2) -> embeddings r (B, N, d); needed once per video."""
        return self._embed(self.reference_encoder, reference.mT)

    def predict(
        self, audio_tokens: Tensor, pose_tokens: Tensor, reference_tokens: Tensor, pose: Tensor, reference: Tensor
    ) -> LandmarkOutput:
        """Predicts T frames from tokens (equations 4 to 9).

        Args:
            audio_tokens: a (B, T, d)
            pose_tokens: p (B, T, d)
            reference_tokens: r (1 or B, N, d)
            pose: as in `forward`; only subclasses use it
            reference: as in `forward`, (1 or B, N, 131, 2); only subclasses use it
        """
        reference_tokens = reference_tokens.expand(len(audio_tokens), -1, -1)
        lip_states, jaw_states = self.fusion(audio_tokens, pose_tokens, reference_tokens)
        lip = self.lip_head(lip_states).float().unflatten(-1, (NUM_LIP, 2))  # equation 8
        jaw = self.jaw_head(jaw_states).float().unflatten(-1, (NUM_JAW, 2))  # equation 9
        return LandmarkOutput(lip, jaw)

    def _embed(self, encoder: nn.Module, x: Tensor) -> Tensor:
        embeddings = encoder(x.flatten(0, 1)).flatten(1)
        return self.token_norm(embeddings).unflatten(0, x.shape[:2])


def _landmark_encoder(config: LandmarkGeneratorConfig, first_stride: int, last_residual: bool) -> nn.Sequential:
    """Builds an encoder of landmarks, (B, 2, K) -> (B, d, 1), with `landmark_width` channels that double six times."""
    width = config.landmark_width
    stages = [(width, 1, 0), (2 * width, first_stride, 2)]
    stages += [(width * 2**doubling, 2, 2) for doubling in range(2, 6)]
    stages.append((64 * width, 2, 2 if last_residual else 1))
    return encoder(2, stages, config.width, torch.tanh, dimensions=1, last_residual=last_residual)


class _TransformerFusion(nn.Module):
    """Self-attention over reference, audio and pose tokens (equations 4 to 7)."""

    def __init__(self, config: LandmarkGeneratorConfig):
        super().__init__()
        self.width = config.width
        self.type_embedding = nn.Parameter(torch.randn(3, self.width))  # e^type: pose, audio, reference
        self.dropout = nn.Dropout(config.dropout)
        layer = nn.TransformerEncoderLayer(
            self.width,
            config.heads,
            config.feed_forward,
            config.dropout,
            batch_first=True,
            norm_first=config.norm_first,
        )
        final_norm = nn.LayerNorm(self.width) if config.norm_first else None
        self.encoder = nn.TransformerEncoder(layer, config.layers, final_norm, enable_nested_tensor=False)

    def forward(self, audio: Tensor, pose: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, T, d), (B, T, d), (B, N, d) -> states for the lip and for the jaw, (B, T, d) each."""
        num_frames = audio.shape[1]
        position = sinusoidal_positions(num_frames, self.width, audio.device)
        pose_type, audio_type, reference_type = self.type_embedding
        audio = audio + position + audio_type  # equation 4
        pose = pose + position + pose_type  # equation 5
        reference = reference + reference_type  # equation 6
        tokens = torch.cat([reference, audio, pose], dim=1)  # z^0
        states = self.encoder(self.dropout(tokens))  # z^L, equation 7
        lip_states, jaw_states = states[:, -2 * num_frames :].chunk(2, dim=1)
        return lip_states, jaw_states


class _LSTMFusion(nn.Module):
    """One bidirectional LSTM layer over the frames, each joined by the mean reference token (section 4.5, Table 3)."""

    def __init__(self, config: LandmarkGeneratorConfig):
        super().__init__()
        self.width = 2 * config.width
        self.lstm = nn.LSTM(3 * config.width, config.width, batch_first=True, bidirectional=True)

    def forward(self, audio: Tensor, pose: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        """As `_TransformerFusion`, with states (B, T, 2d)."""
        global_reference = reference.mean(1, keepdim=True).expand_as(audio)
        states = self.lstm(torch.cat([pose, audio, global_reference], dim=-1))[0]
        return states, states


def sinusoidal_positions(length: int, width: int, device: torch.device) -> Tensor:
    """Returns e^pos, a table (length, width): sines in even columns, cosines in odd columns, base 10000."""
    rate = 10000.0 ** (torch.arange(0, width, 2, device=device) / -width)
    angle = torch.arange(length, device=device)[:, None] * rate
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)
