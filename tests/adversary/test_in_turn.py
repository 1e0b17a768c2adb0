"""Searches in turn: who is searched for, and what is kept."""

import pytest
import torch

from robustdml.adversary import Adversary, InTurn, Linf, Nes, Noise, Pgd, forwards_of
from robustdml.draws import Draws
from tests.toys import blobs, linear

IMAGES = blobs()[0][:6]
NES = Nes(population=4)


def attack(search, achieved=None, coupled=False, seen=None):
    def energy(z, unit, step):
        if seen is not None and step == 0:
            seen.append(unit.tolist())
        return z[:, 0]

    return Adversary(Linf(0.1), search)(
        linear(), IMAGES, energy, achieved=achieved, coupled=coupled, draws=Draws(0), index=torch.arange(len(IMAGES))
    )


def test_later_searches_see_only_what_is_left_and_the_first_success_stays():
    first, second = attack(Pgd(1, 0.1)), attack(Pgd(3, 0.02))
    asked = []

    def even(z, unit):
        asked.append(unit.tolist())
        return unit % 2 == 0

    seen = []
    found = attack(InTurn((Pgd(1, 0.1), Pgd(3, 0.02), Pgd(2, 0.01))), even, seen=seen)
    assert seen == asked == [[0, 1, 2, 3, 4, 5], [1, 3, 5], [1, 3, 5]]
    assert torch.equal(found[::2], first[::2])
    assert torch.equal(found[1::2], attack(Pgd(2, 0.01))[1::2])
    assert not torch.equal(first, second)


def test_it_ends_once_nothing_is_left():
    seen = []
    attack(InTurn((Pgd(1, 0.1), Pgd(3, 0.02))), lambda z, unit: unit >= 0, seen=seen)
    assert len(seen) == 1


def test_the_goal_is_judged_on_the_perturbed_images():
    embeddings = []

    def never(z, unit):
        embeddings.append(z)
        return unit < 0

    found = attack(InTurn((Pgd(1, 0.1),)), never)
    torch.testing.assert_close(embeddings[0], linear()(found))


@pytest.mark.parametrize(("achieved", "coupled"), [(None, False), (lambda z, unit: unit >= 0, True)])
def test_without_a_goal_of_each_image_all_are_searched_for(achieved, coupled):
    seen = []
    found = attack(InTurn((Pgd(1, 0.1), Pgd(3, 0.02))), achieved, coupled, seen)
    assert seen == [list(range(6))] * 2
    assert torch.equal(found, attack(Pgd(3, 0.02)))


def test_random_starts_differ():
    starts = []

    def never(z, unit):
        starts.append(z)
        return unit < 0

    attack(InTurn((Noise(), Noise())), never)
    assert not torch.allclose(*starts)


def test_it_costs_what_its_searches_cost():
    both = InTurn((Pgd(3, 0.1), NES))
    assert (both.gradients, forwards_of(both)) == (3, forwards_of(NES))
    with pytest.raises(ValueError, match="at least one search"):
        InTurn(())
