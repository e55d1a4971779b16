"""Adversarial loss: it gives the released values, and neither side's gradient reaches the other."""

from pathlib import Path

import pytest
import torch
from torch import nn

from losses.adversarial import discriminator_loss, generator_losses
from models.discriminator import Discriminator
from tests.models.released import case, state_dict


@pytest.fixture
def discriminator() -> Discriminator:
    torch.manual_seed(0)
    return Discriminator(4)


@torch.inference_mode()
def test_parity(shared: Path) -> None:
    network, z = Discriminator(64), case(shared / "reference", "discriminator")
    state = state_dict(shared / "reference", "discriminator")
    network.load_state_dict(
        {f"scales.{1 - int(k[5])}.convs.{k[12]}.{k.rsplit('.')[-1]}": value for k, value in state.items()}
    )
    adversarial, matching = generator_losses(network, z["fake"], z["real"])
    assert adversarial.item() == pytest.approx(z["gan_generator"].item(), abs=1e-5)
    assert matching.item() == pytest.approx(z["feature_matching_unweighted"].item(), abs=1e-5)
    found = discriminator_loss(network, z["fake"], z["real"]).item()
    assert found == pytest.approx(z["gan_discriminator"].item(), abs=1e-5)


def test_generator_step_leaves_the_discriminator_alone(discriminator: Discriminator) -> None:
    generator = nn.Conv2d(3, 3, 1)
    before = {name: value.clone() for name, value in discriminator.state_dict().items()}
    adversarial, matching = generator_losses(
        discriminator, generator(torch.rand(2, 3, 32, 32)), torch.rand(2, 3, 32, 32)
    )
    for term in (adversarial, matching):
        (gradient,) = torch.autograd.grad(term, generator.weight, retain_graph=True)
        assert gradient.abs().max() > 0
    (adversarial + matching).backward()
    assert all(p.grad is None and p.requires_grad for p in discriminator.parameters())
    assert all(torch.equal(before[name], value) for name, value in discriminator.state_dict().items())


def test_discriminator_step_leaves_the_generator_alone(discriminator: Discriminator) -> None:
    generator = nn.Conv2d(3, 3, 1)
    fake = generator(torch.rand(2, 3, 32, 32))
    discriminator_loss(discriminator, fake, torch.rand(2, 3, 32, 32)).backward()
    assert generator.weight.grad is None
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in discriminator.parameters() if p.ndim > 1)
    fake.sum().backward()  # its graph is still there for the generator's own step
    assert generator.weight.grad is not None


def test_discriminator_learns_to_separate_fake_and_real(discriminator: Discriminator) -> None:
    torch.manual_seed(1)
    optimiser = torch.optim.Adam(discriminator.parameters(), 1e-2, betas=(0.5, 0.999))
    values = []
    for _ in range(25):
        fake, real = 0.3 * torch.rand(4, 3, 32, 32), 0.7 + 0.3 * torch.rand(4, 3, 32, 32)
        optimiser.zero_grad()
        loss = discriminator_loss(discriminator, fake, real)
        loss.backward()
        optimiser.step()
        values.append(loss.item())
    assert values[-1] < 0.5 * values[0]
