"""Published losses: value and gradient on given triplets."""

import re
from typing import get_args

import pytest
import torch

from robustdml.defenses import ClasswiseBarlow, Penalised, Plain, SingularValues
from robustdml.defenses.terms import Constraint
from robustdml.diagnosis import batch_efficiency, gradient_cosines
from robustdml.draws import Draws
from robustdml.losses import Contrastive, Triplet
from robustdml.models.embedder import Embedder
from robustdml.types import Batch, Triplets
from tests.golden.cases import DISTANCE, for_each

FILE = "losses"
FAMILIES = ("pcontrast", "ptriplet", "ctriplet", "ttriplet", "ptriplet_switched", "pcontrast_switched")
RAW = ("raw_ptriplet", "raw_pcontrast")
COVERS = [rf"({'|'.join(FAMILIES + RAW)})\.[CEN]/", r"set/", r"cases$"]
COVERS += [r"(ptripletBT|barlow)\.", r"diag/", r"svdreg\d+/"]


def of_families(names):
    return lambda golden: [c for c in golden.strings("cases") if c.split(".")[0] in names]


def loss_for(family, metric):
    distance = DISTANCE[metric]
    if "contrast" in family:
        return Contrastive(distance, margin=0.0 if metric == "C" else 1.0)  # published cosine form: no negative term
    return Triplet(distance, margin=1.0 if metric == "E" else 0.2)


def triplets_for(golden, family, subset):
    a, p, n = golden.tensor(f"set/{subset}/triplets").unbind(dim=1)
    if family.endswith("_switched"):
        return Triplets(a, a, p)
    if family == "ttriplet":
        rows = torch.arange(len(golden.tensor(f"set/{subset}/labels")) // 3 * 3)
        return Triplets(rows[0::3], rows[1::3], rows[2::3])
    return Triplets(a, p, n)


def check(golden, case, value, gradient):
    torch.testing.assert_close(value.detach(), golden.tensor(f"{case}/value"), atol=1e-9, rtol=0)
    torch.testing.assert_close(gradient, golden.tensor(f"{case}/grad"), atol=1e-8, rtol=0)


@for_each(of_families(FAMILIES))
def test_loss_and_gradient_equal_the_published_ones(golden, case):
    name, subset = case.split("/")
    family, metric = name.split(".")
    z = golden.tensor(f"set/{subset}/emb").requires_grad_()
    labels = golden.tensor(f"set/{subset}/labels")
    triplets = triplets_for(golden, family, subset)
    value = loss_for(family, metric)(z, labels, triplets, draws=Draws(0), index=torch.arange(len(z)))
    check(golden, case, value, *torch.autograd.grad(value, z))


@for_each(of_families(RAW))
def test_raw_form_equals_the_published_one(golden, case):
    """The published raw form does not normalise; with unit vectors given that is our distance on the sphere."""
    name, subset = case.split("/")
    family, metric = name.split(".")
    family = family.removeprefix("raw_")
    z = golden.tensor(f"set/{subset}/emb").requires_grad_()
    rows = torch.stack(triplets_for(golden, family, subset).of(z), dim=1)
    loss = loss_for(family, "E" if metric == "N" else metric)
    margin = golden.number(f"{case}/margin") if f"{case}/margin" in golden else loss_for(family, metric).margin
    value = loss.on_triplets(rows, margin)
    check(golden, case, value, *torch.autograd.grad(value, z))


def test_every_loss_is_checked_on_every_set(golden):
    assert of_families(FAMILIES)(golden), "no case found"
    with pytest.raises(KeyError):
        golden.tensor("no such key")


# ---- penalties and diagnoses


@for_each(of_families(("barlow", "ptripletBT")))
def test_barlow_twins_equal_the_published_ones(golden, case):
    """Even rows against odd rows; as a loss, 1e-5 times that beside the triplet loss."""
    name, subset = case.split("/")
    z = golden.tensor(f"set/{subset}/emb").requires_grad_()
    labels = golden.tensor(f"set/{subset}/labels")
    if name == "barlow.N":
        value = ClasswiseBarlow()(z, labels)
    else:
        batch = Batch(torch.zeros(len(z), 1, 1, 1), labels, torch.arange(len(z)), triplets_for(golden, name, subset))
        step = Penalised(Plain(), ClasswiseBarlow())(
            Given(z), Triplet(), batch, memory={}, progress=0.0, draws=Draws(0), mean=lambda x: x
        )
        value = step.loss
    check(golden, case, value, *torch.autograd.grad(value, z))


class Given(Embedder):
    """An embedder that returns the recorded embeddings whatever it is shown."""

    def __init__(self, z):
        super().__init__()
        self.z, self.dim = z, z.shape[1]

    def forward(self, images):
        return self.z


def constraints(golden):
    return sorted({key.rsplit("/", 1)[0] for key in golden.arrays if key.startswith("svdreg")})


@for_each(constraints)
def test_constraints_on_singular_values_equal_the_published_ones(golden, case):
    number, subset, scale = re.fullmatch(r"svdreg(\d+)/([^/]+)/scale([^/]+)", case).groups()
    z = golden.tensor(f"set/{subset}/emb").requires_grad_()
    penalty = SingularValues((get_args(Constraint)[int(number) - 1],))
    value = penalty(float(scale) * z, golden.tensor(f"set/{subset}/labels"))
    (gradient,) = torch.autograd.grad(value, z)
    torch.testing.assert_close(value.detach(), golden.tensor(f"{case}/value"), atol=1e-12, rtol=1e-6)
    expected = golden.tensor(f"{case}/gradsum_abs")
    torch.testing.assert_close(
        gradient.abs().sum() / float(scale), expected, atol=1e-12, rtol=1e-4 if float(scale) < 1 else 1e-6
    )


@for_each(lambda golden: [f"diag/{s}" for s in golden.under("diag/")])
def test_diagnoses_equal_the_published_ones(golden, case):
    subset = case.split("/")[1]
    triplets = Triplets(*golden.tensor(f"set/{subset}/triplets").unbind(dim=1))
    clean, moved = (
        torch.stack(triplets.of(torch.nn.functional.normalize(golden.tensor(key), dim=1)), dim=1)
        for key in (f"set/{subset}/emb", f"{case}/adv_emb")
    )
    cosines = gradient_cosines(clean, moved, "as-published").T.flatten()
    torch.testing.assert_close(cosines, golden.tensor(f"{case}/cosine_only"), atol=1e-9, rtol=0)
    torch.testing.assert_close(
        batch_efficiency(clean, moved), golden.tensor(f"{case}/batcheff_only"), atol=1e-9, rtol=0
    )
