"""Published losses: value and gradient on given triplets."""

import pytest
import torch

from robustdml.draws import Draws
from robustdml.losses import Contrastive, Triplet
from robustdml.types import Triplets
from tests.golden.cases import DISTANCE, for_each

FILE = "losses"
FAMILIES = ("pcontrast", "ptriplet", "ctriplet", "ttriplet", "ptriplet_switched", "pcontrast_switched")
RAW = ("raw_ptriplet", "raw_pcontrast")
COVERS = [rf"({'|'.join(FAMILIES + RAW)})\.[CEN]/", r"set/", r"cases$"]


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
