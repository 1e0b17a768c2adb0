"""Published attacks: objectives, target selection, and complete runs."""

import re
from dataclasses import replace

import pytest
import torch
from torch import nn

from robustdml.adversary import Adversary, Linf, Nes, Pgd, eccv_schedule
from robustdml.attacks import Attack, RetrievalSystem, Surrogate
from robustdml.attacks.goals import (
    Candidate,
    DynamicWeight,
    EmbeddingShift,
    FixedWeight,
    Misclassify,
    Mismatch,
    Misrank,
    Order,
    PreservingOrder,
    PreservingQuery,
    Query,
    TargetedMismatch,
    TopOut,
)
from robustdml.attacks.goals.preserving import kappa_of
from robustdml.deep_metric import DeepMetric
from robustdml.distance import Dot
from robustdml.draws import Draws
from robustdml.energies import hardness
from robustdml.models.embedder import Layers
from robustdml.models.normalise import imagenet
from robustdml.ranking import Gallery
from robustdml.types import RunReference
from tests.golden.cases import DISTANCE, Recorded, for_each

FILE = "attacks"
RUNS = (
    r"(?:CA[+-]_W\d+|QA[+-]_M\d+|SPQA[+-]_M\d+_\w+|(?:SP)?FOA_M\d+|(?:CA|QA)[+-]_dist|TMA|ES|ES_fgsm|GTT|"
    r"GTM_(?:upstream|corrected)|LTM_(?:upstream|corrected)|(?:rinit|transfer|nes)_.*)"
)
LOSSES = r"(?:CA|CADIST)[+-]/W\d+|(?:QA|QADIST)[+-]/M\d+|ES|GTM|GTT|TMA|LTMPAIR|FOA2|FOAX"
SELECTIONS = (
    "topmost_idx|caminus_draw|caminus_idx|qaminus_perm|qaminus_idx|gtt_top1|gtt_top2|local_draw|local_idx|foa_perm|"
    "(?:foa2|foax)_idx|(?:qaminus|qaplus|foa2|foax)_preserve_idx|gtm_(?:match|unmatch)_(?:upstream|corrected)"
)
CLASSES = r"untargeted|targeted|fgsm|rinit|unbound|universal|normalised_space"
COVERS = [
    rf"e2e/[CEN]/({RUNS})/",
    r"e2e/(gallery_u8|gallery_labels|batch_idx|eps|alpha|steps|nes|gallery_emb_raw)$",
    rf"loss/[CEN]/({LOSSES})/",
    r"loss/[CEN]/dist$",
    r"loss/(X_raw|labels_X|q_raw|q0_raw|self_idx|labels_q|idx_\d+|idx_tma|idx_foa2|idx_foax|"
    r"idx_gtm_unmatch|idx_gtt_match|idx_ltmpair_[pn])$",
    rf"select/[CEN]/({SELECTIONS})$",
    r"net/(main|surrogate|classifier)/",
    r"xi/",
    r"eccv_schedule/(eps|alpha|steps)$",
    rf"class/(labels$|({CLASSES})/)",
]
DIRECTION = {"+": "raise", "-": "lower"}


def goal_for(name, targets=1):
    """The goal of a run or loss called `name` in the file; `targets` where the name does not say how many."""
    kind = re.sub(r"^(rinit|transfer|nes)_", "", name).replace("/", "_")
    found = re.fullmatch(r"(CA|QA)(DIST)?([+-])(?:_[WM](\d+))?(_dist)?", kind)
    if found:
        objective = "distance" if found[2] or found[5] else "hinge"
        goal = Candidate if found[1] == "CA" else Query
        return goal(DIRECTION[found[3]], int(found[4] or targets), objective=objective)
    found = re.fullmatch(r"SPQA([+-])_M(\d+)_(\w+)", kind)
    if found:
        weight = FixedWeight(1.0) if found[3] == "xi1" else DynamicWeight(kappa_of(found[3]))
        return PreservingQuery(DIRECTION[found[1]], int(found[2]), weight=weight)
    found = re.fullmatch(r"(SP)?FOA_?M?(\d+|X)", kind)
    if found:
        count = targets if found[2] == "X" else int(found[2])
        return PreservingOrder(count, weight=FixedWeight(1.0)) if found[1] else Order(count)
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
    """A goal with recorded targets, keeping the summed energy of each step and the embeddings of the last."""

    def __init__(self, goal, aims):
        self.goal, self.aims, self.trace, self.last = goal, aims, [], None
        self.coupled, self.perturbs = goal.coupled, goal.perturbs
        self.score, self.achieved = goal.score, goal.achieved

    def choose(self, scene, *, draws, index):
        return self.aims if self.aims is not None else self.goal.choose(scene, draws=draws, index=index)

    def energy(self, scene, aims):
        energy = self.goal.energy(scene, aims)

        def traced(z, unit, step):
            value = energy(z, unit, step)
            self.trace.append(value.detach())
            self.last = z.detach()
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


def recorded(golden, key, name):
    aims = golden.tensor(f"{key}/{name}")
    return aims[:, None] if aims.ndim == 1 else aims


def recorded_aims(golden, key):
    """Targets, then what is preserved."""
    first = "unmatch_idx" if "GTM" in key else "match_idx" if "GTT" in key else "target_idx"
    return [recorded(golden, key, name) for name in (first, "preserve_idx") if f"{key}/{name}" in golden]


def search_of(golden, run, draws):
    if run.startswith("nes_"):
        population, steps, step_size, sigma = golden.tensor("e2e/nes").tolist()
        return Nes(int(steps), int(population), sigma, step_size)
    steps = 1 if run.endswith("fgsm") else golden.number("e2e/steps")
    return Pgd(steps, golden.number("e2e/alpha"), random_start="start" in draws)


def recorded_draws(golden, key):
    rows = golden.tensor("e2e/batch_idx")
    draws = {"start": golden.tensor(f"{key}/uniform")} if f"{key}/uniform" in golden else {}
    if f"{key}/gauss" in golden:
        draws |= {f"population {step}": (rows, z) for step, z in enumerate(golden.tensor(f"{key}/gauss"))}
    return draws


def attacked(golden, case):
    metric, run = case.split("/")
    model, scene, images = end_to_end(golden, metric)
    key = f"e2e/{case}"
    aims = recorded_aims(golden, key)
    goal = Aimed(goal_for(run, aims[0].shape[1] if aims else 1), torch.cat(aims, dim=1) if aims else None)
    draws = recorded_draws(golden, key)
    adversary = Adversary(Linf(golden.number("e2e/eps")), search_of(golden, run, draws))
    attack, surrogate = Attack(goal, adversary), None
    if run.startswith("transfer_"):  # RobRank's form: the gallery is the attacked model's, whatever the surrogate sees
        attack = Attack(goal, adversary, RunReference("surrogate"), energy_gallery="target")
        surrogate = Surrogate(DeepMetric(network(golden, "surrogate"), DISTANCE[metric]), scene)
    index = golden.tensor("e2e/batch_idx")
    outcome = attack(model, scene, images, draws=Recorded(**draws), index=index, surrogate=surrogate)
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
    published = golden.tensor(f"{key}/loss_trace")  # black-box runs keep none
    trace = torch.tensor([float(reduce(t)) for t in goal.trace[: len(published)]], dtype=torch.float64)
    assert ((trace - published).abs() <= 1e-6 * published.abs().clamp_min(1)).all()
    moved = (
        (outcome.images - golden.tensor("e2e/gallery_u8").double()[golden.tensor("e2e/batch_idx")] / 255).abs().amax()
    )
    torch.testing.assert_close(moved, golden.tensor(f"{key}/linf"), atol=1e-9, rtol=0)


@for_each(runs)
def test_reported_numbers_equal_the_published_ones(golden, case):
    model, scene, outcome, aimed = attacked(golden, case)
    key, n = f"e2e/{case}", scene.size
    shift = outcome.after["shift"].mean()
    torch.testing.assert_close(shift, golden.tensor(f"{key}/embshift_final"), atol=0, rtol=2e-6)
    after = model.embed(outcome.images)
    for when, ours, z in (("before", outcome.before, scene.clean), ("after", outcome.after, after)):
        for name, value in zip(golden.strings(f"{key}/{when}_keys"), golden.arrays[f"{key}/{when}"], strict=True):
            if name == "embshift":
                own, tolerance = published_shift(golden, case, when, aimed, scene, ours), 1e-9
            elif name in ("loss", "loss_sp"):
                own, tolerance = loss_of(name, aimed, scene, outcome.aims, z), 2e-6 * abs(value)
            else:
                own, tolerance = ours_under(name, ours), 5e-8
            if "CA" in name and when == "before":
                tolerance = 1.01 / n  # rounding decides upstream whether the candidate's own copy comes before it
            assert abs(own - value) <= tolerance, f"{when} {name}: {own} for {value}"


def published_shift(golden, case, when, aimed, scene, ours):
    """Upstream's shift: of the image before the last step, or of a black-box attack divided by the population."""
    if when == "before":
        return 0.0
    final = float(ours["shift"].mean())
    if "transfer_" in case:
        return final
    if "nes_" in case:
        return final * len(scene.clean) / (2 * golden.tensor(f"e2e/{case}/gauss").shape[2])
    return float(scene.distance.pairs(aimed.last, scene.clean).mean())


def lost_by(goal, scene, aims):
    """What the preserved items have lost, as an energy."""
    return Query("raise").energy(scene, aims[:, goal.candidates :])


def loss_of(name, aimed, scene, aims, z):
    """The published loss of evaluated embeddings: the hinge, also where distances alone were minimised."""
    goal, unit = aimed.goal, torch.arange(len(z))
    if name == "loss_sp":
        return float(lost_by(goal, scene, aims)(z, unit, 1).mean())
    goal = replace(goal, objective="hinge") if getattr(goal, "objective", "hinge") != "hinge" else goal
    values = goal.energy(scene, aims)(z, unit, 1)
    return float(values.sum() if isinstance(goal, (EmbeddingShift, Misrank)) else values.mean())


@for_each(lambda golden: [c for c in runs(golden) if f"e2e/{c}/xi_final" in golden])
def test_the_last_weight_equals_the_published_one(golden, case):
    model, scene, outcome, aimed = attacked(golden, case)
    lost = lost_by(aimed.goal, scene, outcome.aims)(model.embed(outcome.images), torch.arange(len(outcome.aims)), 1)
    torch.testing.assert_close(aimed.goal.weight(lost).mean(), golden.tensor(f"e2e/{case}/xi_final"), atol=0, rtol=1e-6)


def ours_under(name, scores):
    if "GTprank" in name or name == "GT.mR":
        return float(scores["preserved_prank"].mean())
    if "prank" in name:
        return float(scores["prank"].mean())
    if name in ("FOA2:Accuracy", "FOA:tau"):
        return float(scores["swapped" if "2" in name else "tau"].mean())
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
    named = {"TMA": "idx_tma", "GTM": "idx_gtm_unmatch", "GTT": "idx_gtt_match", "FOA2": "idx_foa2", "FOAX": "idx_foax"}
    key = named.get(name) or (f"idx_{count[0]}" if count else None)
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
        aims = loss_aims(golden, name)
        goal = goal_for(name, aims.shape[1])
        value = goal.energy(scene, aims)(z, unit, 1)
        scores = {score: values.mean() for score, values in goal.score(scene, aims)(z.detach()).items()}
        for ours, theirs, factor in (("prank", "rank", scene.size), ("swapped", "acc", 1), ("tau", "tau", 1)):
            if f"loss/{case}/{theirs}" in golden:
                tolerance = {"atol": 1.0, "rtol": 0} if name.startswith("QADIST") else {"atol": 1e-9, "rtol": 2e-6}
                published = golden.tensor(f"loss/{case}/{theirs}")
                torch.testing.assert_close(scores[ours] * factor, published, **tolerance)
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
    assert torch.equal(scene.nearest, topmost)
    caminus, qaminus = published("caminus_draw"), published("qaminus_perm")
    check(Candidate("lower", caminus.shape[1]), "caminus_idx", target=caminus)
    check(Query("lower", published("qaminus_idx").shape[1]), "qaminus_idx", target=qaminus)
    local = published("local_draw")
    check(Query("raise", local.shape[1], sampling="local"), "local_idx", target=local - int(0.01 * scene.size))
    kept = published("qaminus_preserve_idx")
    goal = PreservingQuery("lower", qaminus_count(golden, case), preserved=kept.shape[1])
    aims = goal.choose(scene, draws=Recorded(target=qaminus), index=index)
    assert torch.equal(aims, torch.cat([published("qaminus_idx"), kept], dim=1))
    kept = published("qaplus_preserve_idx")
    anything = torch.zeros(len(index), 1, dtype=torch.long)
    aims = PreservingQuery("raise").choose(scene, draws=Recorded(target=anything), index=index)
    assert torch.equal(aims[:, 1 : 1 + kept.shape[1]], kept)
    for kind in ("foa2", "foax"):
        targets, kept = published(f"{kind}_idx"), published(f"{kind}_preserve_idx")
        check(Order(targets.shape[1]), f"{kind}_idx", target=published("foa_perm"))
        goal = PreservingOrder(targets.shape[1], preserved=kept.shape[1])
        aims = goal.choose(scene, draws=Recorded(target=published("foa_perm")), index=index)
        assert torch.equal(aims, torch.cat([targets, kept], dim=1))
    check(TopOut(), "gtt_top1")
    assert torch.equal(scene.nearest[:, 1], published("gtt_top2").flatten())
    check(Mismatch("as-published"), "gtm_unmatch_upstream")
    check(Mismatch(), "gtm_unmatch_corrected")
    others = scene.without_itself(scene.distances, torch.inf)
    same = others.masked_fill(~scene.without_itself(scene.same_class, False), torch.inf).argmin(dim=1)
    assert torch.equal(same, published("gtm_match_corrected").flatten())


def qaminus_count(golden, case):
    return golden.tensor(f"select/{case}/qaminus_idx").shape[1]


@for_each(lambda golden: [name for name in golden.under("xi/") if name != "loss_sp"])
def test_the_dynamic_weight_equals_the_published_one(golden, case):
    found = DynamicWeight(kappa_of(case), per="image")(golden.tensor("xi/loss_sp"))
    torch.testing.assert_close(found, golden.tensor(f"xi/{case}"), atol=0, rtol=1e-12)


def test_the_schedule_equals_the_published_one(golden):
    for eps, alpha, steps in zip(*(golden.tensor(f"eccv_schedule/{k}").tolist() for k in ("eps", "alpha", "steps"))):
        found = eccv_schedule(eps)
        assert (found.steps, found.step_size) == (steps, pytest.approx(alpha, rel=1e-12))


@for_each(lambda golden: [run for run in golden.under("class/") if run != "labels"])
def test_attacks_on_a_classifier_equal_the_published_ones(golden, case):
    """A classifier embeds into its logits and is ranked against the identity.

    Published attacks in normalised space divide eps and step by the standard deviation of each channel. Ours happen in
    pixels, with the normalisation inside the network: the sign of the gradient is the same on both sides of it.
    """
    classifier, labels = network(golden, "classifier"), golden.tensor("class/labels")
    x, published = golden.tensor(f"class/{case}/x"), golden.tensor(f"class/{case}/xadv")
    normalise = imagenet() if case == "normalised_space" else None
    if normalise:
        classifier = Layers(classifier.dim, normalise, classifier)
    model = DeepMetric(classifier, Dot())
    images = normalise.inverse(x).clamp(0, 1) if normalise else x
    gallery = Gallery(torch.eye(classifier.dim, dtype=torch.float64), torch.arange(classifier.dim))
    scene = RetrievalSystem(model.distance, gallery).scene(model.embed(images), labels, None)
    trace = golden.tensor(f"class/{case}/loss_trace")
    key = f"class/{case}/uniform"
    draws = {"start": golden.tensor(key)} if key in golden else {}
    search = Pgd(len(trace), golden.number("e2e/alpha"), random_start=bool(draws), universal=case == "universal")
    ball = Linf(1.0 if case == "unbound" else golden.number("e2e/eps"))
    goal = Aimed(Misclassify("next" if case == "targeted" else "any"), None)
    outcome = Attack(goal, Adversary(ball, search))(
        model, scene, images, draws=Recorded(**draws), index=torch.arange(len(x))
    )
    found = normalise(outcome.images) if normalise else outcome.images
    torch.testing.assert_close(found, published, atol=1e-6 if normalise else 1e-9, rtol=0)
    own = torch.stack([values.mean() for values in goal.trace])
    torch.testing.assert_close(own, trace, atol=1e-6 if normalise else 1e-9, rtol=0)


def test_something_is_checked_in_every_part(golden):
    assert runs(golden)
    assert losses(golden)
    assert golden.under("select/")
    with pytest.raises(KeyError):
        goal_for("no such run")
    assert Draws(0) == Draws(0)
