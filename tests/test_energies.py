"""Energies against their equations."""

import pytest
import torch

from robustdml.distance import DISTANCES, Spherical
from robustdml.energies import collapse, hardness, shift
from tests.toys import generator

ALL = pytest.mark.parametrize("distance", [c() for c in DISTANCES.values()], ids=repr)


def some(*shape):
    return torch.randn(*shape, generator=generator(), dtype=torch.float64)


@ALL
def test_hardness_is_the_difference_of_two_distances(distance):
    a, p, n = some(3, 4, 5)
    expected = torch.stack([distance.pairs(a[i], p[i]) - distance.pairs(a[i], n[i]) for i in range(4)])
    torch.testing.assert_close(hardness(distance, a, p, n), expected)


def test_hardness_is_positive_exactly_where_the_negative_is_nearer():
    a, p, n = some(3, 50, 5)
    d = Spherical().matrix(a, torch.cat([p, n])).unflatten(1, (2, 50))
    own = torch.arange(50)
    assert torch.equal(hardness(Spherical(), a, p, n) > 0, d[own, 1, own] < d[own, 0, own])


@ALL
def test_collapse_is_the_distance_inside_a_pair(distance):
    z = some(4, 2, 5)
    found = collapse(distance)(z, torch.arange(4), 3)
    assert torch.equal(found, distance.pairs(z[:, 0], z[:, 1]))


@ALL
def test_shift_is_minus_the_distance_to_the_reference_of_the_unit(distance):
    reference, z, unit = some(3, 5), some(4, 5), torch.tensor([2, 0, 0, 1])
    energy = shift(distance, reference, lambda unit: torch.ones(len(unit), 5, dtype=torch.float64))
    assert torch.equal(energy(z, unit, 1), -distance.pairs(z, reference[unit]))
    assert torch.equal(energy(z, unit, 0), -distance.pairs(z, reference[unit], 1.0))


@ALL
def test_shift_has_a_direction_at_its_first_step(distance):
    reference = some(3, 5)
    energy = shift(distance, reference, lambda unit: torch.full_like(reference[unit], 1e-7))
    z = reference.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(energy(z, torch.arange(3), 0).sum(), z)
    assert bool((gradient.abs().amax(dim=1) > 0).all())
    assert bool(torch.isfinite(gradient).all())
