"""Least-squares adversarial loss with feature matching (paper, equations 19 and 20).

One object owns the discriminator, its optimiser and both criteria, so that neither side's gradient reaches the other.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Features = list[list[Tensor]]  # for each scale: feature maps, the logits last


class AdversarialLoss:
    """The generator's terms, and the discriminator's training."""

    def __init__(self, discriminator: nn.Module, optimiser: torch.optim.Optimizer):
        """The discriminator maps pictures (B, 3, H, W) to `Features`; the optimiser holds its parameters."""
        self.discriminator = discriminator
        self.optimiser = optimiser

    def generator(self, fake: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """Adversarial and feature matching term for pictures (B, 3, H, W); the discriminator is frozen meanwhile."""
        with frozen(self.discriminator):
            with torch.no_grad():
                real_features = self.discriminator(real)
            fake_features = self.discriminator(fake)
        return generator_loss(fake_features), feature_matching(fake_features, real_features)

    def train_discriminator(
        self, fake: Tensor, real: Tensor, backward: Callable[[Tensor], object] = Tensor.backward, step: bool = True
    ) -> Tensor:
        """One step of the discriminator on pictures (B, 3, H, W); the generator gets no gradient.

        Args:
            fake: the generator's output; its graph is not touched
            real: true faces
            backward: in place of `loss.backward()`, for scaled losses
            step: False adds to the gradient only (all but the last of the accumulated batches)

        Returns:
            the loss, detached
        """
        both = self.discriminator(torch.cat([fake.detach(), real.detach()]))
        fake_features = [[f[: len(fake)] for f in scale] for scale in both]
        real_features = [[f[len(fake) :] for f in scale] for scale in both]
        loss = discriminator_loss(fake_features, real_features)
        backward(loss)
        if step:
            self.optimiser.step()
            self.optimiser.zero_grad()
        return loss.detach()


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Its parameters get no gradient from what is computed inside; gradients still pass through it."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    module.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def generator_loss(fake: Features) -> Tensor:
    """Mean (D(fake) - 1)^2, summed over the scales."""
    return torch.stack([(scale[-1].float() - 1).square().mean() for scale in fake]).sum()


def discriminator_loss(fake: Features, real: Features) -> Tensor:
    """Half of mean D(fake)^2 + mean (D(real) - 1)^2, summed over the scales."""
    return 0.5 * (torch.stack([scale[-1].float().square().mean() for scale in fake]).sum() + generator_loss(real))


def feature_matching(fake: Features, real: Features) -> Tensor:
    """Mean absolute difference of all feature maps but the logits, times 4 / (number of them) / (number of scales)."""
    terms = [
        F.l1_loss(f, r) * (4 / (len(fake_scale) - 1) / len(fake))
        for fake_scale, real_scale in zip(fake, real, strict=True)
        for f, r in zip(fake_scale[:-1], real_scale[:-1], strict=True)
    ]
    return torch.stack(terms).sum()
