"""Adversarial training for free."""

from dataclasses import replace

import pytest
import torch

from robustdml.adversary import Adversary, Linf, Noise, Pgd
from robustdml.defenses import (
    AntiCollapse,
    Benign,
    CollapseAware,
    Constant,
    FreeTraining,
    Gradual,
    Growing,
    HardnessManipulation,
    MinMax,
    Penalised,
    Plain,
    Replay,
    ShiftTraining,
)
from robustdml.draws import Draws
from robustdml.losses import Triplet
from robustdml.types import Batch
from tests.toys import blobs, linear

FREE = FreeTraining(Linf(0.05), 0.03, repeats=3)


def batch(pairs=4, seed=0):
    images, labels = blobs(pairs, 2, seed=seed)
    return Batch(images, labels, torch.arange(2 * pairs))


def on_batch(defense, embedder, given, memory, lr=0.0):
    """All repeats on one batch; the memory afterwards, and the embeddings of every repeat."""
    seen, again = [], True
    while again:
        taken = defense(
            embedder, Triplet(margin=1.0), given, memory=memory, progress=0.0, draws=Draws(0), mean=lambda t: t
        )
        embedder.zero_grad()
        taken.loss.backward()
        memory, again = taken.after_backward(), taken.again
        with torch.no_grad():
            for p in embedder.parameters():
                p.sub_(lr * p.grad)
        seen.append(taken.z.detach())
    return memory, seen


def test_repeats_see_the_same_triplets_and_a_growing_loss():
    embedder = linear()
    memory, seen = on_batch(FREE, embedder, batch(), {})
    values = [float(Triplet(margin=1.0).on_triplets(z)) for z in seen]
    assert len(values) == 3
    assert values == sorted(values)
    assert values[0] < values[-1]
    assert set(memory) == {"perturbation"}
    assert memory["perturbation"].shape == (4, 3, 1, 4, 4)
    assert 0.04 < float(memory["perturbation"].abs().max()) <= 0.05 + 1e-15


def test_the_perturbation_starts_where_the_last_batch_left_it():
    embedder = linear()
    memory, _ = on_batch(FREE, embedder, batch(), {})
    _, fresh = on_batch(FREE, embedder, batch(seed=1), {})
    _, carried = on_batch(FREE, embedder, batch(seed=1), memory)
    assert not torch.allclose(fresh[0], carried[0])


def test_smaller_and_larger_batches_use_the_leading_places():
    embedder = linear()
    memory, _ = on_batch(FREE, embedder, batch(4), {})
    smaller, _ = on_batch(FREE, embedder, batch(2, seed=1), memory)
    assert torch.equal(smaller["perturbation"][2:], memory["perturbation"][2:])
    assert not torch.equal(smaller["perturbation"][:2], memory["perturbation"][:2])
    larger, _ = on_batch(replace(FREE, step_size=0.0), embedder, batch(5), memory)
    assert torch.equal(larger["perturbation"][:4], memory["perturbation"])
    assert float(larger["perturbation"][4:].abs().max()) == 0.0


def test_hard_triplets_lose_their_perturbation():
    embedder = linear()
    every, _ = on_batch(replace(FREE, forget_above=-2.1), embedder, batch(), {})
    assert float(every["perturbation"].abs().max()) == 0.0
    none, _ = on_batch(replace(FREE, forget_above=2.1), embedder, batch(), {})
    assert torch.equal(none["perturbation"], on_batch(FREE, embedder, batch(), {})[0]["perturbation"])


def test_nothing_moves_where_the_pixel_is_clipped():
    embedder, given = linear(), batch()
    given = replace(given, images=torch.ones_like(given.images))
    memory = {"perturbation": torch.full((4, 3, 1, 4, 4), 0.02, dtype=torch.float64)}
    after, _ = on_batch(replace(FREE, repeats=1), embedder, given, memory)
    assert torch.equal(after["perturbation"], memory["perturbation"])


def test_a_part_of_a_batch_is_refused():
    embedder = linear()
    taken = FREE(embedder, Triplet(), batch(), memory={}, progress=0.0, draws=Draws(0), mean=lambda t: t)
    taken.loss.backward()
    with pytest.raises(ValueError, match="Set accumulate to 1"):
        FREE(
            embedder, Triplet(), batch(3), memory=taken.after_backward(), progress=0.0, draws=Draws(0),
            mean=lambda t: t,
        )  # fmt: skip


@pytest.mark.parametrize(("bad", "said"), [({"repeats": 0}, "repeats >= 1"), ({"step_size": -1.0}, "step_size >= 0")])
def test_arguments_that_make_no_sense(bad, said):
    with pytest.raises(ValueError, match=said):
        replace(FREE, **bad)


SEARCH = Adversary(Linf(0.05), Pgd(32, 0.02))


def replayed(inner, embedder, given, memory, repeats=3, lr=0.0):
    """All repeats on one batch with weights that move by `lr`: memory and embeddings of each."""
    defense, seen, again = Replay(inner, repeats), [], True
    while again:
        taken = defense(
            embedder, Triplet(), given, memory=memory, progress=1.0, draws=Draws(len(seen)), mean=lambda t: t
        )
        embedder.zero_grad()
        taken.loss.backward()
        memory, again = taken.memory, taken.again
        with torch.no_grad():
            for p in embedder.parameters():
                p.sub_(lr * p.grad)
        seen.append(taken)
    return memory, seen


@pytest.mark.parametrize(
    "defense", [AntiCollapse, MinMax, lambda a: HardnessManipulation(a, destination=Constant(-0.01))]
)
def test_repeats_without_learning_are_the_steps_of_the_inner_problem(defense):
    embedder, given = linear(), batch()
    memory, seen = replayed(defense(SEARCH), embedder, given, {})
    triplets = seen[0].triplets
    assert all(torch.equal(s.triplets.negative, triplets.negative) for s in seen)
    whole = defense(Adversary(Linf(0.05), Pgd(3, 0.02)))(
        embedder, Triplet(), Batch(given.images, given.labels, given.index, triplets), memory={}, progress=1.0,
        draws=Draws(0), mean=lambda t: t,
    )  # fmt: skip
    torch.testing.assert_close(seen[-1].z, whole.z)
    assert [s.again for s in seen] == [True, True, False]
    assert "repeat" not in memory
    assert "triplets" not in memory
    assert float(memory["perturbation"].abs().max()) <= 0.05 + 1e-12


def test_the_perturbation_of_any_defense_is_carried_to_the_next_batch():
    embedder = linear()
    for inner in (ShiftTraining(SEARCH), AntiCollapse(SEARCH)):
        memory, _ = replayed(inner, embedder, batch(), {})
        assert memory["perturbation"].shape[0] == (8 if isinstance(inner, ShiftTraining) else 4)
        _, fresh = replayed(inner, embedder, batch(seed=1), {})
        _, carried = replayed(inner, embedder, batch(seed=1), memory)
        assert not torch.allclose(fresh[0].z, carried[0].z)
        fewer, _ = replayed(inner, embedder, batch(pairs=3), memory)  # and to a smaller one, which leaves the rest
        kept = 6 if isinstance(inner, ShiftTraining) else 3
        assert fewer["perturbation"].shape == memory["perturbation"].shape
        assert torch.equal(fewer["perturbation"][kept:], memory["perturbation"][kept:])


def test_what_the_inner_defense_remembers_is_kept_apart():
    inner = HardnessManipulation(SEARCH, destination=Gradual())
    memory, seen = replayed(inner, linear(), batch(), {"x": torch.ones(1), "inner.previous": torch.tensor(0.1)})
    assert set(memory) == {"x", "inner.previous", "perturbation"}
    torch.testing.assert_close(memory["inner.previous"], seen[-1].loss.detach())
    assert seen[0].logs["destination"] == pytest.approx(-0.1)


def test_what_has_no_steps_cannot_be_replayed():
    for inner in (Plain(), FREE, MinMax(Adversary(Linf(0.1), Noise()))):
        with pytest.raises(ValueError, match="Replay takes single steps of a defense that searches with Pgd"):
            Replay(inner)
    with pytest.raises(ValueError, match="CollapseAware moves other roles at every step"):
        Replay(CollapseAware(SEARCH))
    with pytest.raises(ValueError, match="CollapseAware moves other roles at every step"):
        Replay(Benign(CollapseAware(SEARCH)))
    for inner in (Replay(MinMax(SEARCH)), Benign(Growing(MinMax(SEARCH)))):
        with pytest.raises(ValueError, match="Put Growing around Replay"):
            Replay(inner)
    with pytest.raises(ValueError, match="repeats >= 1"):
        Replay(MinMax(SEARCH), repeats=0)


@pytest.mark.parametrize("wrap", [Benign, Penalised])
def test_what_is_added_to_the_loss_is_added_at_every_repeat(wrap):
    embedder = linear()
    memory, seen = replayed(wrap(MinMax(SEARCH)), embedder, batch(), {})
    alone, expected = replayed(MinMax(SEARCH), embedder, batch(), {})
    torch.testing.assert_close(memory["perturbation"], alone["perturbation"])
    for step, plain in zip(seen, expected, strict=True):
        added = step.logs["benign" if wrap is Benign else "singular values"]
        weight = 0.5 if wrap is Benign else 1.0
        torch.testing.assert_close(step.loss.detach(), plain.loss.detach() + weight * added)


def test_a_growing_adversary_can_be_replayed():
    embedder = linear()
    grown = Growing(Replay(MinMax(SEARCH), repeats=1), share=0.5)
    half = replace(
        SEARCH, ball=Linf(SEARCH.ball.eps / 2), search=replace(SEARCH.search, step_size=SEARCH.search.step_size / 2)
    )
    found, expected = (
        d(embedder, Triplet(), batch(), memory={}, progress=0.25, draws=Draws(0), mean=lambda v: v)
        for d in (grown, Replay(MinMax(half), repeats=1))
    )
    torch.testing.assert_close(found.loss, expected.loss)
