"""Translation module G_r: turns sketches and the masked target face into the output face (paper, section 3.2.2)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.configs import RendererConfig
from models.layers import Adain, ConvBlock, ModulatedBlock, Spade, audio_encoder
from models.motion_field import AlignedReferences


class Translation(nn.Module):
    """Fuses aligned references (SPADE) and the audio feature (AdaIN) into the encoded target (equation 16)."""

    def __init__(self, config: RendererConfig):
        super().__init__()
        fine = config.deep // 4
        channels = 3 + config.num_frames * config.sketch_channels
        self.style = 16 * config.audio_width
        self.audio = audio_encoder(config.audio_width, self.style, F.relu) if config.use_audio else None
        self.shallow = ConvBlock(channels, config.shallow, config.kernel, padding=config.kernel // 2, bias=False)
        self.deep = ConvBlock(config.shallow, config.deep, stride=2, bias=False)
        self.spade_half = ModulatedBlock(Spade, config.deep, config.alignment_deep, config.modulation)
        self.adain_half = ModulatedBlock(Adain, config.deep, self.style, config.style_hidden)
        self.spade_full = ModulatedBlock(Spade, fine, config.shallow, config.modulation)
        self.adain_full = ModulatedBlock(Adain, fine, self.style, config.style_hidden)
        self.spade_image = ModulatedBlock(Spade, fine, 3, config.modulation)
        self.to_rgb = nn.Conv2d(fine, 3, config.kernel, padding="same", bias=False)

    def forward(self, masked_target: Tensor, sketches: Tensor, references: AlignedReferences, mel: Tensor) -> Tensor:
        """Returns the logits of the face's colours (B, 3, H, W).

        Args:
            masked_target: I^m (B, 3, H, W), RGB in [0, 1], lower half zero
            sketches: L_{t-k:t+k} (B, T*S, H, W), in [0, 1]
            references: warped and averaged references, of batch size 1 or B
            mel: (B, 1, 80, 16)
        """
        # Without audio the feature is zero, so that depth and width stay the same.
        audio = self.audio(mel).flatten(1) if self.audio else mel.new_zeros(len(mel), self.style)  # a_t
        x = self.deep(self.shallow(torch.cat([masked_target, sketches], dim=1)))  # (B, C2, H/2, W/2)
        x = self.spade_half(x, references.deep)
        x = self.adain_half(x, audio)
        x = F.pixel_shuffle(x, 2)  # (B, C2/4, H, W)
        x = self.spade_full(x, references.shallow)
        x = self.adain_full(x, audio)
        x = self.spade_image(x, references.image)
        return self.to_rgb(F.leaky_relu(x, 0.01)).float()
