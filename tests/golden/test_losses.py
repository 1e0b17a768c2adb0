"""Published losses: value and gradient on given triplets."""

from dataclasses import replace

import pytest
import torch

from robustdml.distance import Cosine
from robustdml.draws import Draws
from robustdml.losses import (
    Contrastive,
    Gil,
    InfoNce,
    LiftedStructure,
    Margin,
    MultiSimilarity,
    NPair,
    Pml,
    Quadruplet,
    Rhomboid,
    Snr,
    Triplet,
)
from robustdml.mining import Switched
from robustdml.types import Triplets
from tests.golden.cases import DISTANCE, GivenTriplets, for_each

FILE = "losses"
MARGIN = {"C": 0.2, "E": 1.0, "N": 0.2}
LOSSES = {
    "pcontrast": lambda d, m: Contrastive(d, margin=0.0 if m == "C" else 1.0),  # cosine form: no negative term
    "ptriplet": lambda d, m: Triplet(d, margin=MARGIN[m]),
    "ctriplet": lambda d, m: Triplet(d, margin=MARGIN[m]),
    "ttriplet": lambda d, m: Triplet(d, margin=MARGIN[m]),
    "ptripxa": lambda d, m: Triplet(d, margin=MARGIN[m], anchor="fixed"),
    "prhom": lambda d, m: Rhomboid(d, margin=MARGIN[m]),
    "pgil": lambda d, m: Gil(d),
    "psnr": lambda d, m: Snr(d),
    "pice": lambda d, m: InfoNce(d),
    "pstrip": lambda d, m: Pml("TripletMarginLoss", {"margin": 1.0}, d),
    "pangular": lambda d, m: Pml("AngularLoss", {"alpha": 40}, d),
    "pnca": lambda d, m: Pml("NCALoss", {}, d),
}
OF_ALL_ROWS = {
    "pglift": lambda d, m: LiftedStructure(d, margin=MARGIN[m]),
    "pnpair": lambda d, m: NPair(d),
    "pms": lambda d, m: MultiSimilarity(Cosine(), pairs="as-published"),
}
SWITCHED = ("ptriplet_switched", "pcontrast_switched")
RAW = ("raw_ptriplet", "raw_pcontrast")
FAMILIES = (*LOSSES, *OF_ALL_ROWS, *SWITCHED, *RAW, "pmargin", "pquad", "infonce")
COVERS = [rf"({'|'.join(FAMILIES)})\.[CEN]/", r"set/", r"cases$"]


def of_families(names):
    return lambda golden: [c for c in golden.strings("cases") if c.split(".")[0] in names]


def read(golden, case):
    """Family, metric, embeddings, labels and triplets of a case."""
    name, subset = case.split("/")
    family, metric = name.split(".")
    z = golden.tensor(f"set/{subset}/emb").requires_grad_()
    labels = golden.tensor(f"set/{subset}/labels")
    triplets = Triplets(*golden.tensor(f"set/{subset}/triplets").unbind(dim=1))
    if family == "ttriplet":
        rows = torch.arange(len(labels) // 3 * 3)
        triplets = Triplets(rows[0::3], rows[1::3], rows[2::3])
    return family, metric, z, labels, triplets


def evaluated(loss, z, labels, triplets=None):
    return loss.build(len(labels), z.shape[1])(z, labels, triplets, draws=Draws(0), index=torch.arange(len(z)))


def check(golden, case, value, gradient, tolerance=1e-9):
    torch.testing.assert_close(value.detach(), golden.tensor(f"{case}/value"), atol=tolerance, rtol=0)
    torch.testing.assert_close(gradient, golden.tensor(f"{case}/grad"), atol=max(1e-8, tolerance), rtol=0)


@for_each(of_families(LOSSES))
def test_loss_and_gradient_equal_the_published_ones(golden, case):
    family, metric, z, labels, triplets = read(golden, case)
    loss = LOSSES[family](DISTANCE[metric], metric)
    value = evaluated(loss, z, labels, triplets)
    (gradient,) = torch.autograd.grad(value, z)
    if family == "psnr" and bool(golden.tensor(f"{case}/value").isnan()):  # 0/0 there; here the centring remains
        centring = 0.005 * loss.distance.place(z)[triplets.anchor].sum(dim=1).abs().mean()
        torch.testing.assert_close(value, centring, atol=1e-12, rtol=0)
        torch.testing.assert_close(gradient, *torch.autograd.grad(centring, z), atol=1e-12, rtol=0)
        return
    borrowed = isinstance(loss, Pml)  # its distances have no offset of 1e-6
    check(golden, case, value, gradient, 2e-6 if borrowed else 1e-9)


@for_each(of_families(OF_ALL_ROWS))
def test_losses_of_a_whole_batch_equal_the_published_ones(golden, case):
    family, metric, z, labels, _ = read(golden, case)
    value = evaluated(OF_ALL_ROWS[family](DISTANCE[metric], metric), z, labels)
    from_matrix = family == "pglift" and metric != "C"  # exact distances, without the offset of 1e-6
    check(golden, case, value, *torch.autograd.grad(value, z), 2e-6 if from_matrix else 1e-9)


@for_each(of_families(SWITCHED))
def test_switched_triplets_equal_the_published_ones(golden, case):
    family, metric, z, labels, triplets = read(golden, case)
    loss = LOSSES[family.removesuffix("_switched")](DISTANCE[metric], metric)
    value = evaluated(replace(loss, miner=Switched(GivenTriplets(triplets), probability=1.0)), z, labels)
    check(golden, case, value, *torch.autograd.grad(value, z))


@for_each(of_families(["pmargin"]))
def test_margin_loss_and_the_gradient_of_its_boundary_equal_the_published_ones(golden, case):
    _, metric, z, labels, triplets = read(golden, case)
    loss = Margin(DISTANCE[metric]).build(0, 0).double()
    loss.beta.data.fill_(golden.number(f"{case}/beta"))
    value = loss(z, labels, triplets, draws=Draws(0), index=torch.arange(len(z)))
    gradient, of_boundary = torch.autograd.grad(value, [z, loss.beta])  # zeros, not an error, where nothing is active
    check(golden, case, value, gradient)
    torch.testing.assert_close(of_boundary, golden.tensor(f"{case}/grad_beta"), atol=1e-8, rtol=0)


@for_each(of_families(["pquad"]))
def test_quadruplet_loss_with_the_published_second_negative_equals_the_published_one(golden, case):
    _, metric, z, _, triplets = read(golden, case)
    rows = torch.stack([*triplets.of(z), z[golden.tensor(f"{case}/neg2")]], dim=1)
    loss = Quadruplet(DISTANCE[metric], margin=MARGIN[metric], second_margin=MARGIN[metric] / 2)
    value = loss.on_quadruplets(rows)
    check(golden, case, value, *torch.autograd.grad(value, z))


@for_each(of_families(["infonce"]))
def test_infonce_with_a_scale_equals_the_published_one(golden, case):
    _, _, z, labels, _ = read(golden, case)
    value = evaluated(InfoNce(logit_scale=golden.number(f"{case}/t")), z, labels)
    check(golden, case, value, *torch.autograd.grad(value, z), 1e-6)  # published with e^t in single precision


@for_each(of_families(RAW))
def test_raw_form_equals_the_published_one(golden, case):
    """The published raw form does not normalise; with unit vectors given that is our distance on the sphere."""
    family, metric, z, _, triplets = read(golden, case)
    given = LOSSES[family.removeprefix("raw_")](DISTANCE[metric], metric)
    loss = replace(given, distance=DISTANCE["E" if metric == "N" else metric])
    margin = golden.number(f"{case}/margin") if f"{case}/margin" in golden else None
    value = loss.on_triplets(torch.stack(triplets.of(z), dim=1), margin)
    check(golden, case, value, *torch.autograd.grad(value, z))


@for_each(lambda golden: golden.strings("cases"))
def test_every_case_of_these_families_was_checked(golden, case):
    assert case.split(".")[0] in (*FAMILIES, "ptripletBT", "barlow")


def test_a_missing_key_is_an_error(golden):
    with pytest.raises(KeyError):
        golden.tensor("no such key")
