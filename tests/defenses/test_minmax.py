"""Training steps in which every member of a triplet may move."""

from dataclasses import replace
from math import sqrt

import pytest
import torch

from robustdml.adversary import Adversary, Linf, Pgd
from robustdml.defenses import AlternatingCollapse, AnchoredMinMax, MinMax, StoppedMinMax, TripletCollapse
from robustdml.defenses.defense import clean_embeddings
from robustdml.distance import Spherical
from robustdml.draws import Draws
from robustdml.energies import hardness
from robustdml.losses import Contrastive, Triplet
from robustdml.types import Batch, Triplets
from tests.toys import blobs, linear

ADVERSARY = Adversary(Linf(0.05), Pgd(4, 0.02))
FIXED = Triplets(torch.tensor([0, 2, 4, 6]), torch.tensor([1, 3, 5, 7]), torch.tensor([2, 5, 0, 1]))


def batch():
    images, labels = blobs(4, 2)
    return Batch(images, labels, torch.arange(8), FIXED)


def step(defense, embedder, loss=None, memory=None, draws=None):
    return defense(
        embedder, loss or Triplet(), batch(), memory=memory or {}, progress=0.0, draws=draws or Draws(0),
        mean=lambda t: t,
    )  # fmt: skip


def clean(embedder):
    z = clean_embeddings(embedder, batch().images)
    return torch.stack(FIXED.of(z), dim=1)


def of(z):
    return hardness(Spherical(), *z.unbind(dim=1))


def test_min_max_makes_every_triplet_harder():
    embedder = linear()
    assert bool((of(step(MinMax(ADVERSARY), embedder).z) > of(clean(embedder))).all())


def test_the_anchored_form_leaves_the_anchor_where_it_is():
    embedder = linear()
    z, before = step(AnchoredMinMax(ADVERSARY), embedder).z, clean(embedder)
    torch.testing.assert_close(z[:, 0], before[:, 0])
    assert bool((of(z) > of(before)).all())


def test_a_collapsed_triplet_is_smaller_on_all_sides():
    embedder = linear()
    z, before = step(TripletCollapse(ADVERSARY), embedder).z, clean(embedder)

    def perimeter(z):
        a, p, n = z.unbind(dim=1)
        return sum(Spherical().pairs(u, v) for u, v in ((a, p), (p, n), (a, n)))

    assert bool((perimeter(z) < perimeter(before)).all())


class Coin(Draws):
    """Every coin shows the same."""

    def uniform(self, purpose, index, shape=(), dtype=torch.float32):
        return torch.full((len(index), *shape), self.seed / 4, dtype=dtype)


def test_the_coin_of_an_inner_step_chooses_between_collapse_and_hardness():
    embedder = linear()
    hard, collapsed = (step(AlternatingCollapse(ADVERSARY), embedder, draws=Coin(side)).z for side in (1, 3))
    torch.testing.assert_close(hard, step(MinMax(ADVERSARY), embedder).z)
    torch.testing.assert_close(collapsed[:, 0], clean(embedder)[:, 0])  # the anchor has no part in a collapse
    gap, before = (Spherical().pairs(z[:, 1], z[:, 2]) for z in (collapsed, clean(embedder)))
    assert bool((gap < before).all())


@pytest.mark.parametrize("previous", [0.0, 0.05, 0.6, 1.3])
def test_a_triplet_stops_at_the_moving_stop(previous):
    embedder, loss = linear(), Triplet(margin=0.6)
    stop = -0.6 * sqrt(min(previous, 0.6) / 0.6)
    taken = step(StoppedMinMax(ADVERSARY), embedder, loss, {"previous": torch.tensor(previous)})
    assert taken.logs["stop"] == pytest.approx(stop, abs=1e-7)
    before, after = of(clean(embedder)), of(taken.z)
    there = before > stop
    assert bool(there.any()) == (previous >= 0.6)
    assert bool((~there).any())
    torch.testing.assert_close(after[there], before[there])
    assert bool((after[~there] > before[~there]).all())


def test_the_first_stop_is_one_margin_and_the_loss_is_remembered():
    taken = step(StoppedMinMax(ADVERSARY), linear(), Triplet(margin=0.3))
    assert taken.logs["stop"] == pytest.approx(-0.3)
    assert torch.equal(taken.memory["previous"], taken.loss.detach())


def test_the_structure_term_is_the_published_one():
    embedder, loss = linear(), Triplet(margin=0.2)
    plain, kept = (step(StoppedMinMax(ADVERSARY, structure=s), embedder, loss) for s in (0.0, 0.7))
    torch.testing.assert_close(kept.z, plain.z)
    before, z = clean(embedder), plain.z
    term = (
        (Spherical().pairs(before[:, 0], z[:, 0]) - Spherical().pairs(before[:, 0], before[:, 1])).clamp_min(0).mean()
    )
    assert kept.logs["structure"] == pytest.approx(float(term.detach()))
    torch.testing.assert_close(kept.loss, plain.loss + 0.7 * term)
    torch.testing.assert_close(kept.memory["previous"], kept.loss.detach())


def test_the_mean_over_processes_steers():
    taken = StoppedMinMax(ADVERSARY)(
        linear(), Triplet(), batch(), memory={}, progress=0.0, draws=Draws(0), mean=lambda t: t + 5
    )
    torch.testing.assert_close(taken.memory["previous"], taken.loss.detach() + 5)


def test_a_stop_needs_a_margin():
    with pytest.raises(
        ValueError, match=r"^StoppedMinMax needs the triplet loss: its stop is a fraction of the margin"
    ):
        StoppedMinMax(ADVERSARY).check(Contrastive())
    with pytest.raises(ValueError, match="margin > 0"):
        StoppedMinMax(ADVERSARY).check(Triplet(margin=0.0))
    StoppedMinMax(ADVERSARY).check(Triplet())


def test_the_saturated_search_ends_where_the_whole_one_does():
    """Once every triplet has reached the stop nothing moves: ending early is the same."""
    embedder, few, calls = linear(), Adversary(Linf(0.3), Pgd(20, 0.02)), []
    whole = step(StoppedMinMax(few), embedder)
    embedder.register_forward_hook(lambda m, args, out: calls.append(1))
    ended = step(StoppedMinMax(replace(few, search=replace(few.search, saturation=1e-7))), embedder)
    assert torch.equal(whole.z, ended.z)
    assert len(calls) < 20
