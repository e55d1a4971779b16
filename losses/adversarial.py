"""Least-squares adversarial loss with feature matching (paper, equations 19 and 20). Neither side trains the other.

A discriminator maps pictures (B, 3, H, W), for each of its scales, to feature maps, the logits last.
"""

import torch
from torch import Tensor, nn
from torch.func import functional_call

from losses.perceptual import perceptual


def generator_losses(discriminator: nn.Module, fake: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """The generator's terms for its pictures (B, 3, H, W) and the true ones; the discriminator gets no gradient.

    Returns:
        mean (D(fake) - 1)^2, summed over the scales; and the mean absolute difference of all feature maps but the
        logits, times 4 / (number of them) / (number of scales)
    """
    frozen = {name: parameter.detach() for name, parameter in discriminator.named_parameters()}
    with torch.no_grad():
        true = discriminator(real)
    drawn = functional_call(discriminator, frozen, fake)
    adversarial = torch.stack([(scale[-1].float() - 1).square().mean() for scale in drawn]).sum()
    pairs = [(mine[:-1], theirs[:-1]) for mine, theirs in zip(drawn, true, strict=True)]
    distances = [perceptual(mine, theirs) / len(mine) for mine, theirs in pairs]
    return adversarial, 4 * torch.stack(distances).mean()


def discriminator_loss(discriminator: nn.Module, fake: Tensor, real: Tensor) -> Tensor:
    """Half of mean D(fake)^2 + mean (D(real) - 1)^2, summed over the scales; `fake`'s graph is not touched."""
    logits = [scale[-1].float().chunk(2) for scale in discriminator(torch.cat([fake.detach(), real]))]
    return 0.5 * torch.stack([drawn.square().mean() + (true - 1).square().mean() for drawn, true in logits]).sum()
