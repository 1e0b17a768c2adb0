"""Robust fine-tuning towards the first weights."""

import pytest
import torch

from robustdml.adversary import Adversary, Linf, Pgd
from robustdml.defenses import Benign, Growing, Mixture, Penalised, Plain, Replay, TeacherMatching
from robustdml.defenses.defense import first_memory
from robustdml.draws import Draws
from robustdml.energies import squared_shift
from robustdml.losses import Triplet
from robustdml.types import Batch
from tests.toys import blobs, linear, network

ADVERSARY = Adversary(Linf(0.1), Pgd(5, 0.04))


def batch():
    images, labels = blobs(4, 2)
    return Batch(images, labels, torch.arange(8))


def step(embedder, memory=None, adversary=ADVERSARY):
    defense = TeacherMatching(adversary)
    memory = defense.begin(embedder) if memory is None else memory
    return defense(embedder, Triplet(), batch(), memory=memory, progress=0.0, draws=Draws(0), mean=lambda t: t)


def test_the_loss_is_the_squared_distance_to_the_first_network():
    embedder = linear()
    target = embedder(batch().images).detach()
    taken = step(embedder)
    torch.testing.assert_close(taken.loss, (taken.z - target).square().sum(dim=1).mean())
    assert float(taken.loss.detach()) > 0.01  # although the search begins where there is no gradient
    still = step(embedder, adversary=Adversary(Linf(0.0), Pgd(1, 0.0)))
    assert float(still.loss.detach()) == 0


def test_the_teacher_stays_while_the_network_moves():
    embedder = network().eval()
    target = embedder(batch().images).detach()
    memory = step(embedder).memory
    assert {n.removeprefix("teacher.") for n in memory} == embedder.state_dict().keys()
    kept = {n: t.clone() for n, t in memory.items()}
    with torch.no_grad():
        for p in embedder.parameters():
            p.add_(0.1)
    taken = step(embedder, memory, Adversary(Linf(0.0), Pgd(1, 0.0)))
    torch.testing.assert_close(taken.loss, (taken.z - target).square().sum(dim=1).mean())
    assert all(torch.equal(kept[n], taken.memory[n]) for n in kept)


def test_without_a_teacher_nothing_is_trained():
    with pytest.raises(ValueError, match="TeacherMatching remembers no teacher"):
        step(linear(), {})


@pytest.mark.parametrize("wrap", [lambda d: Mixture(Plain(), d), Replay, Growing, Penalised, Benign])
def test_a_defense_around_it_begins_with_the_teacher_too(wrap):
    embedder = linear()
    memory = first_memory(wrap(TeacherMatching(ADVERSARY)), embedder)
    assert {name.rsplit("teacher.", 1)[1] for name in memory} == embedder.state_dict().keys()
    assert first_memory(wrap(Plain()) if wrap in (Penalised, Benign) else Mixture(Plain(), Plain()), embedder) == {}


def test_the_search_finds_a_direction_wherever_embeddings_lie():
    target = torch.full((4, 8), 3.0)
    z = target.clone().requires_grad_()
    energy = squared_shift(target, lambda unit: torch.full((len(unit), 8), 1e-7))
    (gradient,) = torch.autograd.grad(energy(z, torch.arange(4), 0).sum(), z)
    assert bool((gradient > 0).all())


@pytest.mark.parametrize("step", [0, 1])
def test_the_energy_is_minus_the_squared_shift(step):
    z, target = torch.randn(3, 4).double(), torch.randn(2, 4).double()
    unit = torch.tensor([1, 0, 1])
    found = squared_shift(target, lambda unit: torch.full((len(unit), 4), 0.5).double())(z, unit, step)
    nudge = 0.5 if step == 0 else 0.0
    expected = [-sum((float(z[i, k] - target[u, k]) - nudge) ** 2 for k in range(4)) for i, u in enumerate(unit)]
    torch.testing.assert_close(found, torch.tensor(expected).double())
