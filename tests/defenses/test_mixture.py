"""Two defenses taking turns."""

import pytest
import torch

from robustdml.adversary import Adversary, Linf, Pgd
from robustdml.defenses import AntiCollapse, FreeTraining, Mixture, Plain, StoppedMinMax
from robustdml.draws import Draws
from robustdml.losses import Contrastive, Triplet
from robustdml.types import Batch
from tests.toys import blobs, linear

ADVERSARY = Adversary(Linf(0.05), Pgd(1, 0.05))
ACT_OR_NOTHING = Mixture(AntiCollapse(ADVERSARY), Plain())


def step(defense, number, memory=None, rows=8, seed=0):
    images, labels = blobs(rows // 2, 2, seed=seed)
    return defense(
        linear(), Triplet(), Batch(images, labels, torch.arange(rows) + seed), memory=memory or {}, progress=0.0,
        draws=Draws(0).under("epoch", 0, number, 0), mean=lambda t: t,
    )  # fmt: skip


def test_the_coin_depends_on_the_step_alone():
    first = [step(ACT_OR_NOTHING, i).logs["first"] for i in range(60)]
    other = [step(ACT_OR_NOTHING, i, rows=4, seed=3).logs["first"] for i in range(60)]
    assert first == other
    assert 15 < sum(first) < 45


@pytest.mark.parametrize(("share", "shown"), [(0.0, {0.0}), (1.0, {1.0})])
def test_a_share_of_none_and_of_all(share, shown):
    mixture = Mixture(AntiCollapse(ADVERSARY), Plain(), share)
    assert {step(mixture, i).logs["first"] for i in range(20)} == shown


def test_each_remembers_its_own_steps_only():
    mixture, memory = Mixture(StoppedMinMax(ADVERSARY), StoppedMinMax(ADVERSARY)), {}
    for number in range(12):
        before, taken = memory, step(mixture, number, memory)
        memory = taken.memory
        mine, other = ("first", "second") if taken.logs["first"] else ("second", "first")
        assert torch.equal(memory[f"{mine}.previous"], taken.loss.detach())
        assert memory.get(f"{other}.previous") is before.get(f"{other}.previous")
    assert set(memory) == {"first.previous", "second.previous"}


def test_the_turn_is_kept_while_a_batch_is_repeated():
    mixture, memory = Mixture(FreeTraining(Linf(0.05), 0.02, repeats=3), Plain()), {}
    turns = []
    for number in range(8):
        again, repeat = True, 0
        while again:
            taken = step(mixture, 100 * number + repeat, memory)
            taken.loss.backward()
            memory = taken.after_backward() if taken.after_backward else taken.memory
            again, repeat = taken.again, repeat + 1
        turns.append((taken.logs["first"], repeat))
    assert set(turns) == {(1.0, 3), (0.0, 1)}
    assert set(memory) == {"first.perturbation"}


def test_both_must_fit_the_loss():
    with pytest.raises(ValueError, match="StoppedMinMax needs the triplet loss"):
        Mixture(Plain(), StoppedMinMax(ADVERSARY)).check(Contrastive())
    with pytest.raises(ValueError, match=r"share in \[0, 1\]"):
        Mixture(Plain(), Plain(), 1.5)
