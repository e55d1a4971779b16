"""Translation: draws the target face from its masked picture, its sketches, the aligned references and the sound.

Paper, section 3.2.2.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import Adain, ConvBlock, ModulatedBlock, Spade, audio_encoder


class Translation(nn.Module):
    """Logits of the face's colours; the audio encoder is left out when `use_audio` is False (paper, Table 4)."""

    def __init__(
        self, target_channels: int, shallow: int, deep: int, aligned_deep: int, hidden: int, style_hidden: int,
        audio_width: int, use_audio: bool, kernel: int,
    ):  # fmt: skip
        super().__init__()
        fine = deep // 4
        self.style = 16 * audio_width
        self.audio = audio_encoder(audio_width, self.style, F.relu) if use_audio else None
        self.shallow = ConvBlock(3 + target_channels, shallow, kernel, padding=kernel // 2, bias=False)
        self.deep = ConvBlock(shallow, deep, stride=2, bias=False)
        self.spade_half = ModulatedBlock(deep, lambda: Spade(deep, aligned_deep, hidden))
        self.adain_half = ModulatedBlock(deep, lambda: Adain(deep, self.style, style_hidden))
        self.spade_full = ModulatedBlock(fine, lambda: Spade(fine, shallow, hidden))
        self.adain_full = ModulatedBlock(fine, lambda: Adain(fine, self.style, style_hidden))
        self.spade_image = ModulatedBlock(fine, lambda: Spade(fine, 3, hidden))
        self.to_rgb = nn.Conv2d(fine, 3, kernel, padding="same", bias=False)

    def forward(self, masked_target: Tensor, sketches: Tensor, full: Tensor, half: Tensor, mel: Tensor) -> Tensor:
        """Logits (B, 3, H, W).

        Args:
            masked_target: (B, 3, H, W), RGB in [0, 1], lower half zero
            sketches: (B, T*S, H, W)
            full: aligned images and features (1 or B, 3 + C1, H, W)
            half: aligned features (1 or B, C2, H/2, W/2)
            mel: (B, 1, 80, 16)
        """
        # Without audio the AdaIN layers see a constant, so that depth and width stay those of the full model.
        style = mel.new_zeros(len(mel), self.style) if self.audio is None else self.audio(mel).flatten(1)
        image, features = full.split([3, full.shape[1] - 3], dim=1)
        x = self.deep(self.shallow(torch.cat([masked_target, sketches], dim=1)))  # (B, C2, H/2, W/2)
        x = self.spade_half(x, self.spade_half.modulations(half))
        x = self.adain_half(x, self.adain_half.modulations(style))
        x = F.pixel_shuffle(x, 2)  # (B, C2/4, H, W)
        x = self.spade_full(x, self.spade_full.modulations(features))
        x = self.adain_full(x, self.adain_full.modulations(style))
        x = self.spade_image(x, self.spade_image.modulations(image))
        return self.to_rgb(F.leaky_relu(x, 0.01))
