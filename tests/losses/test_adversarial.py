"""Adversarial loss: the released values, and that neither side's gradient reaches the other."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import nn

from losses.adversarial import AdversarialLoss, discriminator_loss, feature_matching, frozen, generator_loss
from models.discriminator import Discriminator, DiscriminatorConfig
from tests.models.released import case, state_dict


@pytest.fixture
def loss() -> AdversarialLoss:
    torch.manual_seed(0)
    network = Discriminator(DiscriminatorConfig(width=4))
    return AdversarialLoss(network, torch.optim.Adam(network.parameters(), 1e-2, betas=(0.5, 0.999)))


@torch.inference_mode()
def test_parity(shared: Path) -> None:
    network, z = Discriminator(), case(shared / "reference", "discriminator")
    state = state_dict(shared / "reference", "discriminator")
    network.load_state_dict(
        {f"scales.{1 - int(k[5])}.convs.{k[12]}.{k.rsplit('.')[-1]}": value for k, value in state.items()}
    )
    fake, real = network(z["fake"]), network(z["real"])
    assert generator_loss(fake).item() == pytest.approx(z["gan_generator"].item(), abs=1e-5)
    assert discriminator_loss(fake, real).item() == pytest.approx(z["gan_discriminator"].item(), abs=1e-5)
    found = feature_matching(fake, real).item()
    assert found == pytest.approx(z["feature_matching_unweighted"].item(), abs=1e-5)


def test_generator_step_leaves_the_discriminator_alone(loss: AdversarialLoss) -> None:
    generator = nn.Conv2d(3, 3, 1)
    real = torch.rand(2, 3, 32, 32)
    before = {name: value.clone() for name, value in loss.discriminator.state_dict().items()}
    adversarial, matching = loss.generator(generator(torch.rand(2, 3, 32, 32)), real)
    (adversarial + matching).backward()
    assert generator.weight.grad is not None and generator.weight.grad.abs().max() > 0
    assert all(p.grad is None and p.requires_grad for p in loss.discriminator.parameters())
    assert all(torch.equal(before[name], value) for name, value in loss.discriminator.state_dict().items())


def test_discriminator_step_leaves_the_generator_alone(loss: AdversarialLoss) -> None:
    generator = nn.Conv2d(3, 3, 1)
    fake = generator(torch.rand(2, 3, 32, 32))
    before = [p.clone() for p in loss.discriminator.parameters()]
    value = loss.train_discriminator(fake, torch.rand(2, 3, 32, 32))
    assert not value.requires_grad and value > 0
    assert generator.weight.grad is None and generator.bias is not None and generator.bias.grad is None
    assert any(not torch.equal(old, new) for old, new in zip(before, loss.discriminator.parameters(), strict=True))
    # Nothing of this step is left over for the next.
    assert all(p.grad is None for p in loss.discriminator.parameters())
    fake.sum().backward()  # its graph is still there for the generator's own step
    assert generator.weight.grad is not None


def test_accumulated_halves_are_the_whole(loss: AdversarialLoss) -> None:
    fake, real = torch.rand(4, 3, 32, 32), torch.rand(4, 3, 32, 32)
    state = {k: v.clone() for k, v in loss.discriminator.state_dict().items()}
    loss.train_discriminator(fake[:2], real[:2], lambda value: (value / 2).backward(), step=False)
    assert all(torch.equal(state[k], v) for k, v in loss.discriminator.state_dict().items())
    loss.train_discriminator(fake[2:], real[2:], lambda value: (value / 2).backward(), step=False)
    halves = [p.grad.clone() for p in loss.discriminator.parameters() if p.grad is not None]
    loss.optimiser.zero_grad()
    loss.train_discriminator(fake, real, step=False)
    whole = [p.grad for p in loss.discriminator.parameters() if p.grad is not None]
    assert len(whole) == len(halves) > 0
    for a, b in zip(halves, whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_it_learns_to_tell(loss: AdversarialLoss) -> None:
    torch.manual_seed(1)
    values = [
        loss.train_discriminator(0.3 * torch.rand(4, 3, 32, 32), 0.7 + 0.3 * torch.rand(4, 3, 32, 32)).item()
        for _ in range(25)
    ]
    assert values[-1] < 0.5 * values[0]


def test_state_comes_back(loss: AdversarialLoss) -> None:
    fake, real = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    loss.train_discriminator(fake, real)
    network = Discriminator(DiscriminatorConfig(width=4))
    other = AdversarialLoss(network, torch.optim.Adam(network.parameters(), 1e-2, betas=(0.5, 0.999)))
    other.discriminator.load_state_dict(loss.discriminator.state_dict())
    other.optimiser.load_state_dict(deepcopy(loss.optimiser.state_dict()))
    assert loss.train_discriminator(fake, real) == other.train_discriminator(fake, real)
    assert loss.train_discriminator(fake, real) == other.train_discriminator(fake, real)


def test_frozen_restores_what_was_trained() -> None:
    network = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    network[0].requires_grad_(False)
    with pytest.raises(RuntimeError), frozen(network):
        assert not any(p.requires_grad for p in network.parameters())
        raise RuntimeError
    assert [p.requires_grad for p in network.parameters()] == [False, False, True, True]
