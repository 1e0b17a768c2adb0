"""How defenses change the gradients of triplets."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from robustdml.adversary import Adversary, Linf, Pgd
from robustdml.data.digits import Digits
from robustdml.data.errors import DataError
from robustdml.deep_metric import DeepMetric
from robustdml.defenses import AntiCollapse, MinMax, ShiftTraining
from robustdml.diagnosis import (
    DEFENSES,
    Diagnosis,
    batch_efficiency,
    defenses_named,
    diagnose,
    gradient_cosines,
    miner_named,
    summary,
    triplet_gradients,
    write_diagnosis,
)
from robustdml.distance import Euclidean, Spherical
from robustdml.mining import SoftHard
from robustdml.models import Pixels, SmallConv
from robustdml.types import Step
from tests.toys import generator, unchanged

SEARCH = Adversary(Linf(0.1), Pgd(3, 0.04))


def unit_triplets(seed=0, t=9):
    return F.normalize(torch.randn(t, 3, 5, generator=generator(seed), dtype=torch.float64), dim=-1)


def pixels(distance=None):
    return DeepMetric(Pixels().build((1, 8, 8)), distance or Spherical())


def test_the_gradients_are_those_of_hardness():
    z = unit_triplets().requires_grad_()
    a, p, n = z.unbind(dim=1)
    h = (a - p).norm(dim=1) - (a - n).norm(dim=1)
    torch.testing.assert_close(triplet_gradients(z), torch.autograd.grad(h.sum(), z)[0])


def test_a_triplet_that_did_not_move_has_cosines_of_one_and_no_efficiency():
    z = unit_triplets()
    torch.testing.assert_close(gradient_cosines(z, z), torch.ones(9, 3, dtype=torch.float64))
    assert float(batch_efficiency(z, z).abs().max()) < 1e-12


def test_a_triplet_with_positive_and_negative_exchanged_has_the_opposite_gradient_to_the_anchor():
    z = unit_triplets()
    cosines = gradient_cosines(z, z[:, [0, 2, 1]])
    torch.testing.assert_close(cosines[:, 0], -torch.ones(9, dtype=torch.float64))
    assert bool((batch_efficiency(z, z[:, [0, 2, 1]]) * batch_efficiency(z[:, [0, 2, 1]], z) <= 0).all())


def test_rows_are_independent_unless_normalised_as_published():
    clean, moved = unit_triplets(0), unit_triplets(1)
    torch.testing.assert_close(gradient_cosines(clean, moved)[2:4], gradient_cosines(clean[2:4], moved[2:4]))
    published = gradient_cosines(clean, moved, "as-published")
    assert not torch.allclose(published[2:4], gradient_cosines(clean[2:4], moved[2:4], "as-published"))
    torch.testing.assert_close(published[:, 1:], gradient_cosines(clean, moved)[:, 1:])  # one vector alone: any norm


def test_every_defense_is_compared_on_the_same_triplets():
    data, metric = Digits().load(), pixels()
    together = diagnose(metric, data, Diagnosis({"ACT": AntiCollapse(SEARCH), "AMD": MinMax(SEARCH)}, triplets=40))
    alone = diagnose(metric, data, Diagnosis({"AMD": MinMax(SEARCH)}, triplets=40))
    assert all(torch.equal(together["AMD"][s], alone["AMD"][s]) for s in alone["AMD"])
    assert all(len(v) == 40 for own in together.values() for v in own.values())
    assert float(together["AMD"]["efficiency"].mean()) > float(together["ACT"]["efficiency"].mean()) > 0


@pytest.mark.parametrize("name", DEFENSES)
def test_every_name_can_be_diagnosed(name):
    found = diagnose(pixels(), Digits().load(), Diagnosis(defenses_named([name], SEARCH), triplets=10, pairs=5))[name]
    for s, v in found.items():
        assert v.shape == (10,)
        assert bool(torch.isfinite(v).all())
        assert float(v.abs().max()) <= (4 if s == "efficiency" else 1 + 1e-6)


def test_the_model_stays_as_it_is_and_raw_embeddings_are_not_normalised():
    data = Digits().load()
    model = SmallConv(dim=8, width=4).build((1, 8, 8)).train()
    check = unchanged(model)
    asked = Diagnosis({"EST": ShiftTraining(SEARCH)}, triplets=12)
    raw, sphere = (diagnose(DeepMetric(model, d), data, asked)["EST"] for d in (Euclidean(), Spherical()))
    check()
    assert not torch.equal(raw["negative"], sphere["negative"])


def test_more_triplets_than_an_epoch_has_pairs():
    data = Digits().load()
    few = replace(data, split=replace(data.split, train=data.split.train[:30]))
    assert len(diagnose(pixels(), few, Diagnosis({"ACT": AntiCollapse(SEARCH)}, triplets=70))["ACT"]["anchor"]) == 70


def test_numbers_are_summed_up():
    told = summary(torch.tensor([-1.0, 0.0, 1.0, 2.0]))
    assert (told["mean"], told["quartiles"], told["below_zero"]) == (0.5, [-0.25, 0.5, 1.25], 0.25)


def test_files_are_complete_and_the_same_every_time(tmp_path):
    asked = Diagnosis(defenses_named(["EST", "ACT"], SEARCH), SoftHard(), triplets=30, pairs=15)
    values = []
    for name in ("a", "b"):
        value = write_diagnosis(pixels(), Digits().load(), asked, tmp_path / name, about={"name": "pixels"})
        assert value == json.loads((tmp_path / name / "diagnosis.json").read_text())
        values.append({k: v for k, v in value.items() if k != "provenance"})
    assert values[0] == values[1]
    assert values[0]["diagnosis"]["defenses"]["ACT"]["type"] == "AntiCollapse"
    with np.load(tmp_path / "a" / "diagnosis.npz") as archive:
        assert archive["EST/anchor"].mean() == pytest.approx(values[0]["statistics"]["EST"]["anchor"]["mean"], abs=1e-6)
        assert len(archive.files) == 8
    for suffix, head in (("png", b"\x89PNG"), ("svg", b"<?xml")):
        one, other = ((tmp_path / name / f"diagnosis.{suffix}").read_bytes() for name in ("a", "b"))
        assert one.startswith(head)
        assert one == other
    text = (tmp_path / "a" / "diagnosis.svg").read_text()
    assert all(word in text for word in ("EST", "ACT", "Batch efficiency", "Gradient to the anchor"))


@dataclass(frozen=True)
class Silent:
    """A defense that does not say what its loss saw."""

    def __call__(self, embedder, loss, batch, *, memory, progress, draws, mean):
        return Step(embedder(batch.images).sum(), memory=memory)

    def check(self, loss):
        """Any."""


def test_what_makes_no_sense_is_refused():
    data = Digits().load()
    for bad, said in (
        ({"defenses": {}}, "at least one defense"),
        ({"triplets": 0}, "at least 1 triplet"),
        ({"pairs": 1}, "2 pairs per batch"),
    ):
        with pytest.raises(ValueError, match=said):
            Diagnosis(**{"defenses": {"ACT": AntiCollapse(SEARCH)}, **bad})
    with pytest.raises(ValueError, match=r"unknown defense 'ATC' .*Did you mean .*ACT"):
        defenses_named(["EST", "ATC"], SEARCH)
    with pytest.raises(ValueError, match="Did you mean SoftHard"):
        miner_named("Softhard")
    with pytest.raises(ValueError, match="Silent does not say"):
        diagnose(pixels(), data, Diagnosis({"mine": Silent()}, triplets=4))
    one_class = replace(data, split=replace(data.split, train=(data.labels == 3).nonzero()[:, 0]))
    with pytest.raises(DataError, match="images of 1 classes"):
        diagnose(pixels(), one_class, Diagnosis({"ACT": AntiCollapse(SEARCH)}))
