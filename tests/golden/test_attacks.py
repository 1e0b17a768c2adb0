"""Published attacks: objectives, target selection, and complete runs."""

import re

import pytest
import torch
from torch import nn

from robustdml.adversary import Adversary, Linf, Pgd
from robustdml.attacks import Attack, RetrievalSystem
from robustdml.attacks.goals import Candidate, EmbeddingShift, Mismatch, Misrank, Query, TargetedMismatch, TopOut
from robustdml.deep_metric import DeepMetric
from robustdml.draws import Draws
from robustdml.energies import hardness
from robustdml.models.embedder import Layers
from robustdml.ranking import Gallery
from tests.golden.cases import DISTANCE, Recorded, for_each

FILE = "attacks"
RUNS = r"CA[+-]_W\d+|QA[+-]_M\d+|TMA|ES|ES_fgsm|GTT|GTM_(?:upstream|corrected)|LTM_(?:upstream|corrected)|rinit_.*"
LOSSES = r"CA[+-]/W\d+|QA[+-]/M\d+|ES|GTM|GTT|TMA|LTMPAIR"
SELECTIONS = (
    "topmost_idx|caminus_draw|caminus_idx|qaminus_perm|qaminus_idx|gtt_top1|gtt_top2|"
    "gtm_(?:match|unmatch)_(?:upstream|corrected)"
)
COVERS = [
    rf"e2e/[CEN]/({RUNS})/",
    r"e2e/(gallery_u8|gallery_labels|batch_idx|eps|alpha|steps|gallery_emb_raw)$",
    rf"loss/[CEN]/({LOSSES})/",
    r"loss/[CEN]/dist$",
    r"loss/(X_raw|labels_X|q_raw|q0_raw|self_idx|labels_q|idx_\d+|idx_tma|idx_gtm_unmatch|idx_gtt_match|idx_ltmpair_[pn])$",
    rf"select/[CEN]/({SELECTIONS})$",
    r"net/main/",
]
DIRECTION = {"+": "raise", "-": "lower"}


def goal_for(name):
    """The goal of a run or loss called `name` in the file."""
    kind = name.removeprefix("rinit_").replace("/", "_")
    found = re.fullmatch(r"(CA|QA)([+-])(?:_[WM](\d+))?", kind)
    if found:
        count = int(found[3] or 1)
        return (Candidate if found[1] == "CA" else Query)(DIRECTION[found[2]], count)
    return {
        "TMA": TargetedMismatch(),
        "ES": EmbeddingShift(),
        "ES_fgsm": EmbeddingShift(),
        "GTT": TopOut(),
        "GTM": Mismatch(),
        "GTM_upstream": Mismatch("as-published"),
        "GTM_corrected": Mismatch(),
        "LTM_upstream": Misrank("included"),
        "LTM_corrected": Misrank(),
    }[kind]


class Aimed:
    """A goal with recorded targets, keeping the summed energy of each step."""

    def __init__(self, goal, aims):
        self.goal, self.aims, self.trace = goal, aims, []
        self.coupled, self.perturbs = goal.coupled, goal.perturbs
        self.score, self.achieved = goal.score, goal.achieved

    def choose(self, scene, *, draws, index):
        return self.aims if self.aims is not None else self.goal.choose(scene, draws=draws, index=index)

    def energy(self, scene, aims):
        energy = self.goal.energy(scene, aims)

        def traced(z, unit, step):
            value = energy(z, unit, step)
            self.trace.append(value.detach())
            return value

        return traced


def network(golden, name):
    state = {k.removeprefix(f"net/{name}/"): golden.tensor(k) for k in golden.arrays if k.startswith(f"net/{name}/")}
    width, channels = state["conv.weight"].shape[:2]
    dim, flat = state["fc.weight"].shape
    norm = nn.BatchNorm2d(width, eps=float(state.pop("bn.eps")))
    layers = Layers(
        dim,
        nn.Conv2d(channels, width, 3, padding=1),
        norm,
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(flat, dim),
    ).double()
    for part, place in (("conv", 0), ("bn", 1), ("fc", 5)):
        own = {k.split(".", 1)[1]: v for k, v in state.items() if k.startswith(part)}
        layers.layers[place].load_state_dict(own, strict=part != "bn")
    return layers.train()  # handed over as upstream does: the attack must run it in evaluation mode


def end_to_end(golden, metric):
    model = DeepMetric(network(golden, "main"), DISTANCE[metric])
    images = golden.tensor("e2e/gallery_u8").double() / 255
    gallery = Gallery(model.embed(images), golden.tensor("e2e/gallery_labels"))
    torch.testing.assert_close(gallery.z, golden.tensor("e2e/gallery_emb_raw"), atol=1e-9, rtol=0)
    rows = golden.tensor("e2e/batch_idx")
    scene = RetrievalSystem(DISTANCE[metric], gallery).scene(gallery.z[rows], gallery.labels[rows], rows)
    return model, scene, images[rows]


def runs(golden):
    return [f"{m}/{run}" for m in "CEN" for run in golden.under(f"e2e/{m}/") if re.fullmatch(RUNS, run)]


def recorded_aims(golden, key):
    for name in ("target_idx", "unmatch_idx", "match_idx"):
        wanted = name != "unmatch_idx" or "GTM" in key
        if f"{key}/{name}" in golden and wanted:
            aims = golden.tensor(f"{key}/{name}")
            return aims[:, None] if aims.ndim == 1 else aims
    return None


def attacked(golden, case):
    metric, run = case.split("/")
    model, scene, images = end_to_end(golden, metric)
    key = f"e2e/{case}"
    goal = Aimed(goal_for(run), recorded_aims(golden, key))
    uniform = {"start": golden.tensor(f"{key}/uniform")} if f"{key}/uniform" in golden else {}
    steps = 1 if run.endswith("fgsm") else golden.number("e2e/steps")
    search = Pgd(steps, golden.number("e2e/alpha"), random_start=bool(uniform))
    adversary = Adversary(Linf(golden.number("e2e/eps")), search)
    index = golden.tensor("e2e/batch_idx")
    outcome = Attack(goal, adversary)(model, scene, images, draws=Recorded(**uniform), index=index)
    return model, scene, outcome, goal


@for_each(runs)
def test_adversarial_images_equal_the_published_ones(golden, case):
    model, _, outcome, goal = attacked(golden, case)
    key = f"e2e/{case}"
    torch.testing.assert_close(outcome.images, golden.tensor(f"{key}/xadv"), atol=1e-9, rtol=0)
    z = model.embed(outcome.images)
    unit = z if case.startswith("E/") else nn.functional.normalize(z, dim=1)
    torch.testing.assert_close(unit, golden.tensor(f"{key}/emb_adv"), atol=1e-9, rtol=0)
    reduce = torch.sum if isinstance(goal.goal, (EmbeddingShift, Misrank)) else torch.mean
    trace = torch.stack([reduce(t) for t in goal.trace])
    published = golden.tensor(f"{key}/loss_trace")
    assert ((trace - published).abs() <= 1e-6 * published.abs().clamp_min(1)).all()
    moved = (
        (outcome.images - golden.tensor("e2e/gallery_u8").double()[golden.tensor("e2e/batch_idx")] / 255).abs().amax()
    )
    torch.testing.assert_close(moved, golden.tensor(f"{key}/linf"), atol=1e-9, rtol=0)


@for_each(runs)
def test_reported_numbers_equal_the_published_ones(golden, case):
    _, scene, outcome, _ = attacked(golden, case)
    key, n = f"e2e/{case}", scene.size
    shift = outcome.after["shift"].mean()
    torch.testing.assert_close(shift, golden.tensor(f"{key}/embshift_final"), atol=0, rtol=2e-6)
    for when, ours in (("before", outcome.before), ("after", outcome.after)):
        for name, value in zip(golden.strings(f"{key}/{when}_keys"), golden.arrays[f"{key}/{when}"], strict=True):
            if name in ("loss", "embshift"):
                continue  # the loss is compared step by step; the published shift is of the image before the last
            own, tolerance = ours_under(name, ours), 5e-8
            if "CA" in name and when == "before":
                tolerance = 1.01 / n  # rounding decides upstream whether the candidate's own copy comes before it
            assert abs(own - value) <= tolerance, f"{when} {name}: {own} for {value}"


def ours_under(name, scores):
    if "prank" in name:
        return float(scores["prank"].mean())
    if name == "Cosine-SIM":
        return float(scores["cosine"].mean())
    if name in ("ID-Retain@1", "retain@4"):
        return float(scores["retain@" + name[-1]].mean())
    k = int(name.removeprefix("r@"))
    percent = 100 if "recall@10" in scores else 1  # ES is published in percent, LTM and GTM as fractions
    return percent * float(scores[f"recall@{k}"].mean())


def losses(golden):
    found = {k.removeprefix("loss/").rsplit("/", 1)[0] for k in golden.arrays if k.endswith("/per_sample")}
    return sorted(c for c in found if re.fullmatch(LOSSES, c.split("/", 1)[1]))


def loss_scene(golden, metric):
    gallery = Gallery(golden.tensor("loss/X_raw"), golden.tensor("loss/labels_X"))
    system = RetrievalSystem(DISTANCE[metric], gallery)
    return system.scene(golden.tensor("loss/q0_raw"), golden.tensor("loss/labels_q"), golden.tensor("loss/self_idx"))


def loss_aims(golden, name):
    count = re.search(r"\d+$", name)
    key = f"idx_{count[0]}" if count else {"TMA": "idx_tma", "GTM": "idx_gtm_unmatch", "GTT": "idx_gtt_match"}.get(name)
    aims = golden.tensor(f"loss/{key}") if key else torch.empty(len(golden.tensor("loss/q_raw")), 0, dtype=torch.long)
    return aims[:, None] if aims.ndim == 1 else aims


@for_each(losses)
def test_objectives_equal_the_published_ones(golden, case):
    metric, name = case.split("/", 1)
    scene, z = loss_scene(golden, metric), golden.tensor("loss/q_raw").requires_grad_()
    unit = torch.arange(len(z))
    if name == "LTMPAIR":
        p, n = (scene.gallery.z[golden.tensor(f"loss/idx_ltmpair_{role}")] for role in "pn")
        value = -hardness(scene.distance, z, p, n)
    else:
        goal, aims = goal_for(name), loss_aims(golden, name)
        value = goal.energy(scene, aims)(z, unit, 1)
        if f"loss/{case}/rank" in golden:
            rank = goal.score(scene, aims)(z.detach())["prank"].mean() * scene.size
            torch.testing.assert_close(rank, golden.tensor(f"loss/{case}/rank"), atol=0, rtol=2e-6)
    torch.testing.assert_close(value.detach(), golden.tensor(f"loss/{case}/per_sample"), atol=1e-9, rtol=0)
    total = value.sum() if name == "ES" else value.mean()
    torch.testing.assert_close(total.detach(), golden.tensor(f"loss/{case}/loss"), atol=1e-9, rtol=0)
    (gradient,) = torch.autograd.grad(total, z)
    torch.testing.assert_close(gradient, through_normalisation(golden, case), atol=1e-9, rtol=0)


def through_normalisation(golden, case):
    """The published gradient is taken at the normalised embedding; ours at the raw one, hence projected and scaled."""
    gradient, z = golden.tensor(f"loss/{case}/grad"), golden.tensor("loss/q_raw")
    if case.startswith("E/"):
        return gradient
    unit = nn.functional.normalize(z, dim=1)
    return (gradient - (gradient * unit).sum(dim=1, keepdim=True) * unit) / z.norm(dim=1, keepdim=True)


@for_each(lambda golden: [m for m in "CEN" if f"loss/{m}/dist" in golden])
def test_gallery_distances_equal_the_published_ones(golden, case):
    ours = DISTANCE[case].matrix(golden.tensor("loss/q_raw"), golden.tensor("loss/X_raw"))
    published = golden.tensor(f"loss/{case}/dist")
    tolerance = torch.where(published < 1e-6, 1e-7, 1e-9)
    assert ((ours - published).abs() <= tolerance).all()


@for_each(lambda golden: golden.under("select/"))
def test_target_selection_equals_the_published_one(golden, case):
    _, scene, _ = end_to_end(golden, case)
    index = golden.tensor("e2e/batch_idx")

    def published(name):
        return golden.tensor(f"select/{case}/{name}")

    def check(goal, name, **recorded):
        wanted = published(name)
        wanted = wanted[:, None] if wanted.ndim == 1 else wanted
        assert torch.equal(goal.choose(scene, draws=Recorded(**recorded), index=index)[:, : wanted.shape[1]], wanted)

    topmost = published("topmost_idx")
    assert torch.equal(scene.nearest[:, : topmost.shape[1]], topmost)
    head = scene.__class__(
        scene.system, scene.clean, scene.labels, scene.itself, scene.distances, scene.nearest[:, : topmost.shape[1]]
    )
    scene = head
    caminus, qaminus = published("caminus_draw"), published("qaminus_perm")
    check(Candidate("lower", caminus.shape[1]), "caminus_idx", target=caminus)
    check(Query("lower", published("qaminus_idx").shape[1]), "qaminus_idx", target=qaminus)
    check(TopOut(), "gtt_top1")
    assert torch.equal(scene.nearest[:, 1], published("gtt_top2").flatten())
    check(Mismatch("as-published"), "gtm_unmatch_upstream")
    check(Mismatch(), "gtm_unmatch_corrected")
    others = scene.without_itself(scene.distances, torch.inf)
    same = others.masked_fill(~scene.without_itself(scene.same_class, False), torch.inf).argmin(dim=1)
    assert torch.equal(same, published("gtm_match_corrected").flatten())


def test_something_is_checked_in_every_part(golden):
    assert runs(golden)
    assert losses(golden)
    assert golden.under("select/")
    with pytest.raises(KeyError):
        goal_for("no such run")
    assert Draws(0) == Draws(0)
