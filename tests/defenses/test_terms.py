"""Penalties added to the loss of a defense."""

import math
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F

from robustdml.adversary import Adversary, Linf, Pgd
from robustdml.defenses import AntiCollapse, ClasswiseBarlow, Penalised, Plain, ShiftTraining, SingularValues
from robustdml.draws import Draws
from robustdml.losses import Triplet
from robustdml.recipes import adjusted, recipe
from robustdml.types import Batch, Step
from tests.toys import blobs, generator, linear

ADVERSARY = Adversary(Linf(0.05), Pgd(2, 0.03))


def step(defense):
    images, labels = blobs(3, 8)
    return defense(
        linear(), Triplet(), Batch(images, labels, torch.arange(24)), memory={}, progress=0.0, draws=Draws(0),
        mean=lambda t: t,
    )  # fmt: skip


def barlow_by_loop(a, b, labels, off_diagonal=0.005):
    """The equation, class by class and entry by entry of C."""
    total = torch.zeros((), dtype=a.dtype)
    for c in labels.unique():
        x, y = a[labels == c], b[labels == c]
        if len(x) < 3 or bool((x.std(dim=0) == 0).any()) or bool((y.std(dim=0) == 0).any()):
            continue
        x, y = ((v - v.mean(dim=0)) / v.std(dim=0) for v in (x, y))
        for k in range(x.shape[1]):
            for j in range(x.shape[1]):
                entry = (x[:, k] * y[:, j]).sum() / len(x)
                total = total + ((entry - 1) ** 2 if k == j else off_diagonal * entry**2)
    return total


def pairs(seed=0):
    g = generator(seed)
    labels = torch.tensor([4, 1, 4, 9, 1, 4, 4, 1, 9, 7])
    return (*(torch.randn(10, 5, generator=g, dtype=torch.float64).requires_grad_() for _ in "ab"), labels)


def test_barlow_twins_are_their_equation():
    a, b, labels = pairs()
    value, expected = ClasswiseBarlow().of_pairs(a, b, labels), barlow_by_loop(a, b, labels)
    torch.testing.assert_close(value, expected)
    for one, other in zip(torch.autograd.grad(value, (a, b)), torch.autograd.grad(expected, (a, b)), strict=True):
        torch.testing.assert_close(one, other)


def test_a_class_with_a_constant_column_is_left_out_without_harm():
    a, b, labels = pairs()
    with torch.no_grad():
        a[labels == 4, 2] = 0.5
    value = ClasswiseBarlow().of_pairs(a, b, labels)
    torch.testing.assert_close(value, barlow_by_loop(a, b, labels))
    assert all(bool(torch.isfinite(g).all()) for g in torch.autograd.grad(value, (a, b)))


def test_no_class_with_three_pairs_costs_nothing():
    z = torch.randn(8, 4, generator=generator()).requires_grad_()
    value = ClasswiseBarlow()(z, torch.arange(4).repeat_interleave(2))
    assert float(value.detach()) == 0.0
    assert float(torch.autograd.grad(value, z)[0].abs().max()) == 0.0


def test_a_batch_and_its_triplets_have_the_same_pairs():
    z, labels = torch.randn(12, 4, generator=generator()), torch.tensor([0, 0] * 3 + [1, 1] * 3)
    stacked = torch.stack([z[0::2], z[1::2], z[0::2].flip(0)], dim=1)
    torch.testing.assert_close(ClasswiseBarlow()(z, labels), ClasswiseBarlow()(stacked, labels[0::2]))
    torch.testing.assert_close(ClasswiseBarlow()(3 * z, labels), ClasswiseBarlow()(z, labels))


def test_rows_that_are_no_pairs_are_refused():
    with pytest.raises(ValueError, match="use Spc2 batches"):
        ClasswiseBarlow()(torch.randn(4, 3), torch.tensor([0, 1, 0, 1]))


def test_a_penalty_is_added_with_its_weight_and_logged_without():
    for inner in (Plain(), ShiftTraining(ADVERSARY), AntiCollapse(ADVERSARY)):
        alone, with_it = step(inner), step(Penalised(inner, ClasswiseBarlow(weight=0.3)))
        term = ClasswiseBarlow()(alone.z, alone.labels)
        assert float(term.detach()) > 0
        assert with_it.logs["barlow"] == pytest.approx(float(term.detach()))
        torch.testing.assert_close(with_it.loss, alone.loss + 0.3 * term)


def test_penalties_nest():
    both = step(Penalised(Penalised(Plain(), ClasswiseBarlow()), SingularValues(("condition",), weight=2.0)))
    assert {"barlow", "singular values"} <= both.logs.keys()
    expected = step(Plain()).loss + 1e-5 * both.logs["barlow"] + 2 * both.logs["singular values"]
    torch.testing.assert_close(both.loss, expected)


def test_the_default_range_of_singular_values_costs_nothing_inside():
    z = F.normalize(torch.randn(32, 8, generator=generator(), dtype=torch.float64), dim=1)
    labels = torch.zeros(32, dtype=torch.long)
    assert float(SingularValues()(z, labels)) == 0.0
    assert float(SingularValues()(1e4 * z, labels)) == pytest.approx(math.log(1e4 * float(z.svd().S[0]) / 200))


def test_a_collapsed_batch_costs_much_and_stays_finite():
    z = torch.ones(16, 8, dtype=torch.float64).requires_grad_()
    value = SingularValues()(z, torch.zeros(16, dtype=torch.long))
    assert 20 < float(value.detach()) < 1e4
    assert bool(torch.isfinite(torch.autograd.grad(value, z)[0]).all())


@pytest.mark.parametrize("rows", [1, 2, 3, 5])
def test_few_rows_have_the_constraints_of_the_values_there_are(rows):
    s = torch.tensor([40.0, 4.0, 3.9, 3.8, 1.0], dtype=torch.float64)[:rows]
    z = torch.diag(s)
    ratios = [1.2 - float(s[k] / s[k + 1]) for k in range(1, rows - 1)]
    expected = {
        "leading-gap": 2.0 if rows > 1 else 0.0,
        "decay": sum(max(0.0, r) for r in ratios) / max(1, len(ratios)),
        "smallest": 0.0,
    }
    for name, value in expected.items():
        found = SingularValues((name,))(z, torch.zeros(rows, dtype=torch.long))
        assert float(found) == pytest.approx(value), name


def test_constraints_that_make_no_sense():
    with pytest.raises(ValueError, match="at least one constraint of largest"):
        SingularValues(())
    with pytest.raises(ValueError, match=r"got \['tallest'\]"):
        SingularValues(("tallest",))


@dataclass(frozen=True)
class Silent:
    """A defense that does not say what its loss saw."""

    def __call__(self, embedder, loss, batch, *, memory, progress, draws, mean):
        return Step(embedder(batch.images).sum(), memory=memory)

    def check(self, loss):
        """Any."""


def test_a_defense_that_does_not_tell_its_embeddings_is_named():
    with pytest.raises(ValueError, match=r"^Silent does not say .* ClasswiseBarlow cannot be added"):
        step(Penalised(Silent(), ClasswiseBarlow()))


def test_a_word_puts_a_penalty_around_any_defense():
    base = recipe("est-digits-small")
    made = adjusted(base, [("defense", "Penalised")])
    assert made.defense == Penalised(base.defense, SingularValues(("log-largest", "log-smallest"), 1.0))  # as --svd
    assert adjusted(made, [("defense", "Penalised")]) == made  # so that a run resumes with the words it was begun with
    words = [
        ("defense", "Penalised"),
        ("defense.penalty", "ClasswiseBarlow"),
        ("defense.inner.adversary.ball.eps", "0.1"),
    ]
    made = adjusted(base, words)
    assert made.defense.penalty == ClasswiseBarlow(1.0)  # the weight is kept, as every field that both have
    assert made.defense.inner.adversary.ball == Linf(0.1)
    assert adjusted(recipe("plain-digits-small"), [("defense", "Penalised")]).defense.inner == Plain()
