"""Least-squares adversarial loss L_g and feature matching loss L_f (paper, section 3.2.3; pix2pixHD).

Neither network's loss gives the other a gradient. A discriminator maps pictures (B, 3, H, W) to feature maps, the
logits last, for each of its scales.
"""

import torch
from torch import Tensor, nn
from torch.func import functional_call

from losses.perceptual import perceptual


def generator_losses(discriminator: nn.Module, fake: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Computes L_g and L_f of generated and real pictures (B, 3, H, W); the discriminator gets no gradient.

    Returns:
        L_g: mean (D(fake) - 1)^2, summed over the scales
        L_f: mean absolute difference of each feature map but the logits, summed over feature maps and scales, times
            4 / (number of feature maps) / (number of scales)
    """
    frozen = {name: parameter.detach() for name, parameter in discriminator.named_parameters()}
    with torch.no_grad():
        of_real = discriminator(real)
    of_fake = functional_call(discriminator, frozen, fake)
    adversarial = torch.stack([(scale[-1].float() - 1).square().mean() for scale in of_fake]).sum()
    distances = []
    for fake_maps, real_maps in zip(of_fake, of_real, strict=True):
        distance = perceptual(fake_maps[:-1], real_maps[:-1])
        distances.append(distance / (len(fake_maps) - 1))
    return adversarial, 4 * torch.stack(distances).mean()


def discriminator_loss(discriminator: nn.Module, fake: Tensor, real: Tensor) -> Tensor:
    """Computes half of mean D(fake)^2 + mean (D(real) - 1)^2, summed over the scales; `fake` gets no gradient."""
    logits = [scale[-1].float().chunk(2) for scale in discriminator(torch.cat([fake.detach(), real]))]
    losses = [of_fake.square().mean() + (of_real - 1).square().mean() for of_fake, of_real in logits]
    return 0.5 * torch.stack(losses).sum()
