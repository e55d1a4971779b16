"""Translation: draws the target face from its masked picture, its sketches, the aligned references and the sound.

Paper, section 3.2.2.
"""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import Adain, ConvBlock, ModulatedBlock, Spade, audio_encoder

if TYPE_CHECKING:
    from models.renderer import RendererConfig


class Translation(nn.Module):
    """Logits of the face's colours; the audio encoder is left out when `use_audio` is False (paper, Table 4)."""

    def __init__(self, config: "RendererConfig", target_channels: int):
        super().__init__()
        c, fine = config, config.deep // 4
        self.style = 16 * c.audio_width
        self.audio = audio_encoder(c.audio_width, self.style, F.relu) if c.use_audio else None
        self.shallow = ConvBlock(3 + target_channels, c.shallow, c.kernel, padding=c.kernel // 2, bias=False)
        self.deep = ConvBlock(c.shallow, c.deep, stride=2, bias=False)
        self.spade_half = ModulatedBlock(c.deep, lambda: Spade(c.deep, c.alignment_deep, c.modulation))
        self.adain_half = ModulatedBlock(c.deep, lambda: Adain(c.deep, self.style, c.style_hidden))
        self.spade_full = ModulatedBlock(fine, lambda: Spade(fine, c.shallow, c.modulation))
        self.adain_full = ModulatedBlock(fine, lambda: Adain(fine, self.style, c.style_hidden))
        self.spade_image = ModulatedBlock(fine, lambda: Spade(fine, 3, c.modulation))
        self.to_rgb = nn.Conv2d(fine, 3, c.kernel, padding="same", bias=False)

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
        x = self.spade_half(x, half)
        x = self.adain_half(x, style)
        x = F.pixel_shuffle(x, 2)  # (B, C2/4, H, W)
        x = self.spade_full(x, features)
        x = self.adain_full(x, style)
        x = self.spade_image(x, image)
        return self.to_rgb(F.leaky_relu(x, 0.01))
