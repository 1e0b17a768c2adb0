"""Published losses: value and gradient on given triplets."""

import re
from dataclasses import replace
from typing import get_args

import pytest
import torch

from robustdml.defenses import ClasswiseBarlow, Penalised, Plain, SingularValues
from robustdml.defenses.terms import Constraint
from robustdml.diagnosis import batch_efficiency, gradient_cosines
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
from robustdml.models.embedder import Embedder
from robustdml.types import Batch, Triplets
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
COVERS += [r"(ptripletBT|barlow)\.", r"diag/", r"svdreg\d+/"]


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


# ---- penalties and diagnoses


@for_each(of_families(("barlow", "ptripletBT")))
def test_barlow_twins_equal_the_published_ones(golden, case):
    """Even rows against odd rows; as a loss, 1e-5 times that beside the triplet loss."""
    family, _, z, labels, triplets = read(golden, case)
    if family == "barlow":
        value = ClasswiseBarlow()(z, labels)
    else:
        batch = Batch(torch.zeros(len(z), 1, 1, 1), labels, torch.arange(len(z)), triplets)
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
