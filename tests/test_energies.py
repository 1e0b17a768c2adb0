"""Energies against their equations."""

import pytest
import torch

from robustdml.distance import DISTANCES, Spherical
from robustdml.draws import Draws
from robustdml.energies import (
    anchored_hardening,
    collapse,
    collapse_or_hardening,
    collapse_or_split,
    hardening,
    hardness,
    shift,
    triplet_collapse,
)
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


@ALL
def test_hardening_is_minus_the_hardness_up_to_its_stop(distance):
    z, unit = some(6, 3, 5), torch.arange(6)
    ease = -hardness(distance, *z.unbind(dim=1))
    assert torch.equal(hardening(distance)(z, unit, 0), ease)
    stop = float(ease.median())
    assert torch.equal(hardening(distance, stop)(z, unit, 0), ease.clamp_min(stop))
    z.requires_grad_()
    (gradient,) = torch.autograd.grad(hardening(distance, stop)(z, unit, 0).sum(), z)
    assert torch.equal(gradient.flatten(1).abs().amax(dim=1) > 0, ease >= stop)  # at equality it still moves


@ALL
def test_an_anchored_triplet_has_the_anchor_of_its_unit(distance):
    anchor, z, unit = some(3, 5), some(4, 2, 5), torch.tensor([2, 0, 0, 1])
    expected = -hardness(distance, anchor[unit], z[:, 0], z[:, 1])
    assert torch.equal(anchored_hardening(distance, anchor)(z, unit, 0), expected)


@ALL
def test_triplets_collapse_on_all_sides(distance):
    z = some(4, 3, 5)
    sides = [distance.pairs(z[:, i], z[:, j]) for i, j in ((1, 2), (0, 1), (0, 2))]
    torch.testing.assert_close(triplet_collapse(distance)(z, torch.arange(4), 0), sum(sides))


@ALL
def test_collapse_or_split_has_the_sign_of_its_unit(distance):
    z, unit, collapses = some(4, 2, 5), torch.tensor([1, 0, 1, 2]), torch.tensor([True, False, True])
    d = distance.pairs(z[:, 0], z[:, 1])
    assert torch.equal(collapse_or_split(distance, collapses)(z, unit, 0), torch.stack([-d[0], d[1], -d[2], d[3]]))


def test_the_coin_of_a_step_is_that_of_all_rows():
    z, unit, draws = some(4, 3, 5), torch.arange(4), Draws(3)
    energy, kinds = collapse_or_hardening(Spherical(), draws), []
    for step in range(40):
        found = energy(z, unit, step)
        kinds.append(torch.equal(found, Spherical().pairs(z[:, 1], z[:, 2])))
        assert kinds[-1] or torch.equal(found, hardening(Spherical())(z, unit, step))
        torch.testing.assert_close(energy(z[:2], unit[:2], step), found[:2])
    assert 10 < sum(kinds) < 30
