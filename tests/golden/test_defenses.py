"""Published training steps: adversarial images, loss, gradients and BatchNorm state."""

from dataclasses import replace
from typing import get_args

import pytest
import torch
from torch import nn

from robustdml.adversary import Adversary, Linf, Pgd
from robustdml.defenses import (
    AdaptedAntiCollapse,
    AlternatingCollapse,
    AnchoredMinMax,
    AnchoredShiftTraining,
    AntiCollapse,
    ClasswiseBarlow,
    FreeTraining,
    Gradual,
    HardnessManipulation,
    MinMax,
    Penalised,
    Sampled,
    ShiftSuppression,
    ShiftTraining,
    SingularValues,
    StoppedMinMax,
    TripletCollapse,
)
from robustdml.defenses.terms import Constraint
from robustdml.draws import Draws
from robustdml.energies import hardness
from robustdml.losses import Contrastive, Margin, Snr, Triplet
from robustdml.models.embedder import Layers, frozen
from robustdml.types import Batch, Triplets
from tests.golden.cases import DISTANCE, GivenTriplets, Recorded, for_each

FILE = "defenses"
DEFENSE = {
    "est": ShiftTraining,
    "ses": lambda adversary: ShiftSuppression(adversary, as_published=True),
    "rest": AnchoredShiftTraining,
    "act": AntiCollapse,
    "act_barlow": lambda adversary: Penalised(AntiCollapse(adversary), ClasswiseBarlow()),
    "act_adapt": lambda adversary: AdaptedAntiCollapse(adversary, as_published=True),
    "mmt": MinMax,
    "amd": MinMax,
    "tbc": TripletCollapse,
    "acap": AlternatingCollapse,
    "ramd": AnchoredMinMax,
    "amdsemi": StoppedMinMax,
    "hm": HardnessManipulation,
}
SAMPLER = {"r": "random", "m": "semihard", "s": "softhard", "d": "distance", "h": "hard"}
COVERS = [
    r"(est|ses|rest|amd|ramd|amdsemi|mmt|tbc|acap)_[^.]*\.",
    r"(act_[NEC]|act_N_(fgsm|bn|bnfrozen)|act_(contrast|margin|snr|softhard|barlow|adapt_contrast))\.",
    r"freeat_[^.]*\.",
    r"(hm_[^.]*|lga)\.",
    r"(barlow|svdreg)\.",
    r"(net_plain|net_bn|triplets)\.",
    r"(cases|images|labels)$",
]
LOSS = {"triplet": Triplet, "contrast": Contrastive, "margin": Margin, "snr": Snr}


def covered(golden):
    kept = []
    for name in golden.strings("cases"):
        defense, loss = option(golden, name, "defense"), option(golden, name, "loss")
        if defense in DEFENSE and any(family in loss for family in LOSS):
            kept.append(name)
    return kept


def option(golden, name, key):
    return str(golden.arrays[f"{name}.opt.{key}"])


def optional(golden, name, key, otherwise):
    return golden.number(f"{name}.opt.{key}") if f"{name}.opt.{key}" in golden else otherwise


def network(golden, kind):
    """The tiny network of the case, in training mode, BatchNorm frozen where the case says so."""
    prefix = "net_plain" if kind == "plain" else "net_bn"
    state = {k.removeprefix(prefix + "."): golden.tensor(k) for k in golden.arrays if k.startswith(prefix + ".")}
    width, channels = state["0.weight"].shape[:2]
    last = max(int(k.split(".")[0]) for k in state)
    dim, flat = state[f"{last}.weight"].shape
    middle = [] if kind == "plain" else [nn.BatchNorm2d(width)]
    layers = Layers(
        dim, nn.Conv2d(channels, width, 3, padding=1), *middle, nn.ReLU(), nn.Flatten(), nn.Linear(flat, dim)
    )
    layers.double().layers.load_state_dict(state)
    layers.train()
    if kind == "bn_frozen":
        layers.layers[1].eval()
        layers.layers[1].train = lambda mode=True: layers.layers[1]
    return layers


def recorded_miner(golden, sampler):
    return GivenTriplets(Triplets(*golden.tensor(f"triplets.{sampler}")))


def manipulated(golden, name, defense):
    """Hardness manipulation with the choices of a case."""
    destination = Gradual() if optional(golden, name, "gradual", False) else None
    return replace(
        defense,
        source=recorded_miner(golden, SAMPLER[option(golden, name, "source")]),
        destination=destination or Sampled(recorded_miner(golden, SAMPLER[option(golden, name, "destination")])),
        objective=option(golden, name, "objective"),
        structure=optional(golden, name, "ics_weight", 0.5) if optional(golden, name, "ics", False) else 0.0,
    )


def loss_of(golden, name):
    text = option(golden, name, "loss")
    metric, softhard = text[-1], text.startswith("pstriplet")
    miner = recorded_miner(golden, "softhard" if softhard else "random")
    family = next(f for f in LOSS if f in text)
    margin = {"triplet": 1.0 if metric == "E" else 0.2, "contrast": 0.0 if metric == "C" else 1.0}.get(family, 0.2)
    loss = LOSS[family](DISTANCE[metric], miner, margin).build(2, 2)
    for p in loss.parameter_groups().get("beta", []):
        p.data = torch.tensor(0.6, dtype=torch.float64)
    return loss


class Seen:
    """A search that keeps what the wrapped one found."""

    def __init__(self, search):
        self.search, self.gradients = search, search.gradients

    def __call__(self, energy, x, ball, *, achieved=None, coupled=False, draws, index):
        self.found = self.search(energy, x, ball, achieved=achieved, coupled=coupled, draws=draws, index=index)
        return self.found


class Coins(Recorded):
    """Hands out the recorded coin of each inner step; the noise as ever."""

    def uniform(self, purpose, index, shape=(), dtype=torch.float32):
        return self.by_purpose[purpose][index].to(dtype)


def take_step(golden, name, model, eps=None):
    """The step of a case on `model`, and the adversarial images it trained on."""
    kind = option(golden, name, "defense")
    saturation = 1e-7 if kind in ("amdsemi", "hm") and optional(golden, name, "objective", "") != "KL" else None
    search = Seen(Pgd(golden.number(f"{name}.opt.steps"), golden.number(f"{name}.opt.alpha"), saturation=saturation))
    ball = Linf(golden.number(f"{name}.opt.eps") if eps is None else eps)
    defense = DEFENSE[kind](Adversary(ball, search))
    if kind == "hm":
        defense = manipulated(golden, name, defense)
    if optional(golden, name, "aap", False):
        defense = replace(defense, structure=1.0)
    images, labels = golden.tensor("images"), golden.tensor("labels")
    batch = Batch(images, labels, torch.arange(len(labels)))
    recorded = {"shift": golden.tensor(f"{name}.noise") + 1} if f"{name}.noise" in golden else {}
    recorded |= {"inner step": golden.tensor(f"{name}.coin")} if f"{name}.coin" in golden else {}
    loss = loss_of(golden, name)
    previous = optional(golden, name, "prev_loss", None)
    memory = {} if previous is None else {"previous": torch.tensor(previous, dtype=torch.float64)}
    step = defense(model, loss, batch, memory=memory, progress=0.0, draws=Coins(**recorded), mean=lambda x: x)
    return loss, batch, step, search.found


def without_batchnorm(golden):
    """All cases but one that has its own test: upstream's logging pass moves the running statistics first there."""
    return [case for case in covered(golden) if case != "est_N_bn"]


@for_each(without_batchnorm)
def test_training_step_equals_the_published_one(golden, case):
    model = network(golden, option(golden, case, "net"))
    loss, batch, step, found = take_step(golden, case, model)
    check_adversarial_images(golden, case, loss, batch, found)
    check_parts(golden, case, step)
    check_gradients(golden, case, model, step)
    check_hardness(golden, case, loss, batch, found)
    for name, p in [(name, p) for name, group in loss.parameter_groups().items() for p in group]:
        close(p.grad, golden.tensor(f"{case}.grad.lossfunc.{name}"))


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)


def check_adversarial_images(golden, case, loss, batch, found):
    stack = found if found.ndim == 4 else torch.cat(found.unbind(dim=1))
    expected = golden.tensor(f"{case}.adv")
    triplets = trained_triplets(golden, case, loss)
    if option(golden, case, "defense") == "ramd":  # its stack begins with the clean anchors
        stack = torch.cat([batch.images[triplets.anchor], stack])
    if f"{case}.adv_split" in golden:  # both stacks are recorded; the step needs one of them for each triplet
        model = network(golden, option(golden, case, "net"))
        with frozen(model), torch.no_grad():
            a, _, n = triplets.of(model(batch.images))
        collapses = (a - n + 1e-6).norm(dim=1) < 1
        split = golden.tensor(f"{case}.adv_split")
        expected = torch.where(collapses.repeat(2)[:, None, None, None], expected, split)
    close(stack, expected)


def check_parts(golden, case, step):
    """What is logged beside the loss, and what the next step remembers."""
    if f"{case}.loss_barlow" in golden:
        close(torch.tensor(step.logs["barlow"], dtype=torch.float64), golden.tensor(f"{case}.loss_barlow"))
    if f"{case}.loss_adv" in golden:
        penalty = 1e-5 * step.logs.get("barlow", 0.0)
        close(step.loss.detach() - penalty, golden.tensor(f"{case}.loss_adv"))
    if "clean loss" in step.logs:
        close(torch.tensor(step.logs["clean loss"], dtype=torch.float64), golden.tensor(f"{case}.loss_benign"))
    if f"{case}.emb_shift" in golden:
        close(torch.tensor(step.logs["shift"], dtype=torch.float64), golden.tensor(f"{case}.emb_shift"))
    if f"{case}.state_after" in golden:
        close(step.memory["previous"].double(), golden.tensor(f"{case}.state_after"))


def check_gradients(golden, case, model, step):
    close(step.loss.detach(), golden.tensor(f"{case}.loss"))
    step.loss.backward()
    for name, p in model.layers.named_parameters():
        close(p.grad, golden.tensor(f"{case}.grad.{name}"))
    for name, buffer in model.layers.named_buffers():
        key = f"{case}.buffers.{name}"
        if key in golden:
            close(buffer, golden.tensor(key))


def trained_triplets(golden, case, loss):
    if option(golden, case, "defense") == "hm":
        return recorded_miner(golden, SAMPLER[option(golden, case, "source")]).triplets
    return loss.miner.triplets


def check_hardness(golden, case, loss, batch, found):
    """Hardness of the training triplets before and after the inner problem."""
    if f"{case}.H_src" not in golden:
        return
    model = network(golden, option(golden, case, "net"))
    with frozen(model), torch.no_grad():
        clean, source = model(batch.images), trained_triplets(golden, case, loss)
        a, p, n = source.of(clean)
        close(hardness(loss.distance, a, p, n), golden.tensor(f"{case}.H_src"))
        if f"{case}.H_dest" in golden:
            previous = optional(golden, case, "prev_loss", 2.0)
            wanted = manipulated(golden, case, HardnessManipulation(Adversary(Linf(0.0), Pgd(1, 0.0)))).destination(
                clean, batch.labels, source, loss.distance, previous=previous, draws=Draws(0), index=batch.index
            )
            close(wanted, golden.tensor(f"{case}.H_dest").expand_as(wanted))
        moved = found.chunk(2) if found.ndim == 4 else found.unbind(dim=1)
        a, p, n = [a, *map(model, moved)][-3:] if len(moved) == 2 else map(model, moved)
        close(hardness(loss.distance, a, p, n), golden.tensor(f"{case}.H_adv"))


@for_each(lambda golden: [c for c in without_batchnorm(golden) if option(golden, c, "defense") != "ses"])  # logs it
def test_benign_loss_equals_the_published_one(golden, case):
    model = network(golden, option(golden, case, "net"))
    images, labels = golden.tensor("images"), golden.tensor("labels")
    loss = loss_of(golden, case)
    with frozen(model), torch.no_grad():
        value = loss(model(images), labels, draws=Draws(0), index=torch.arange(len(labels)))
    torch.testing.assert_close(value, golden.tensor(f"{case}.loss_benign"), atol=1e-9, rtol=0)


@for_each(lambda golden: [c for c in covered(golden) if c == "est_N_bn"])
def test_shift_training_with_batchnorm_differs_only_by_the_logging_pass(golden, case):
    """Q2: upstream runs the benign images through BatchNorm in training mode, for a log line, before the attack."""
    model = network(golden, "bn")
    images = golden.tensor("images")
    with torch.no_grad():
        benign = loss_of(golden, case)(
            model(images), golden.tensor("labels"), draws=Draws(0), index=torch.arange(len(images))
        )
    torch.testing.assert_close(benign, golden.tensor(f"{case}.loss_benign"), atol=1e-9, rtol=0)
    loss, batch, step, found = take_step(golden, case, model)
    check_adversarial_images(golden, case, loss, batch, found)
    check_gradients(golden, case, model, step)


def test_a_wrong_radius_would_be_noticed(golden):
    name = covered(golden)[0]
    model = network(golden, option(golden, name, "net"))
    loss, batch, _, found = take_step(golden, name, model, eps=1e-6)
    with pytest.raises(AssertionError):
        check_adversarial_images(golden, name, loss, batch, found)


@for_each(lambda golden: [c for c in golden.strings("cases") if option(golden, c, "defense") == "freeat"])
def test_free_training_equals_the_intended_one(golden, case):
    """The published body with its guard removed; repeats with plain gradient descent on the weights."""
    model = network(golden, option(golden, case, "net"))
    loss = loss_of(golden, case)
    steps, eps = golden.number(f"{case}.opt.steps"), golden.number(f"{case}.opt.eps")
    dry = optional(golden, case, "dryrun", False)  # a wipe after every repeat is no perturbation at all
    defense = FreeTraining(
        Linf(0.0 if dry else eps),
        eps if steps == 1 else golden.number(f"{case}.opt.alpha"),
        golden.number(f"{case}.opt.repeats"),
        -0.2 if optional(golden, case, "stopatsemi", False) else None,
    )
    images, labels = golden.tensor("images"), golden.tensor("labels")
    batch = Batch(images, labels, torch.arange(len(labels)))
    memory = {}
    if f"{case}.sigma0" in golden:
        memory["perturbation"] = torch.stack(golden.tensor(f"{case}.sigma0").chunk(3), dim=1)
    optimiser = torch.optim.SGD(model.parameters(), lr=golden.number(f"{case}.opt.sgd_lr"))
    losses, again = [], True
    while again:
        step = defense(model, loss, batch, memory=memory, progress=0.0, draws=Draws(0), mean=lambda x: x)
        optimiser.zero_grad()
        step.loss.backward()
        memory, again = step.after_backward(), step.again
        optimiser.step()
        losses.append(step.loss.detach())
    close(torch.stack(losses), golden.tensor(f"{case}.losses"))
    close(torch.cat(memory["perturbation"].unbind(dim=1)), golden.tensor(f"{case}.sigma"))
    for name, p in model.layers.named_parameters():
        close(p.detach(), golden.tensor(f"{case}.weights_after.{name}"))


def test_barlow_twins_equal_the_published_ones(golden):
    barlow = ClasswiseBarlow()
    a, b = (golden.tensor(f"barlow.z{x}").requires_grad_() for x in "ab")
    labels = golden.tensor("barlow.labels")
    close(barlow.of_pairs(a, b, torch.zeros_like(labels)).detach(), golden.tensor("barlow.kernel"))
    value = barlow.of_pairs(a, b, labels)
    close(value.detach(), golden.tensor("barlow.classwise"))
    for gradient, x in zip(torch.autograd.grad(value, (a, b)), "ab", strict=True):
        close(gradient, golden.tensor(f"barlow.classwise.grad_z{x}"))


@for_each(lambda golden: sorted({k.split(".")[1] for k in golden.arrays if k.startswith("svdreg.")}))
def test_constraints_on_singular_values_equal_the_published_ones(golden, case):
    x = golden.tensor(f"svdreg.{case}.x")
    labels = torch.zeros(len(x), dtype=torch.long)
    each = torch.stack([SingularValues((name,))(x, labels) for name in get_args(Constraint)])
    torch.testing.assert_close(each, golden.tensor(f"svdreg.{case}.constraints"), atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(
        SingularValues()(x, labels), golden.tensor(f"svdreg.{case}.default"), atol=1e-9, rtol=1e-9
    )


def test_the_gradual_adversary_equals_the_published_one(golden):
    z = torch.zeros(2, 3, dtype=torch.float64)
    one = Triplets(*torch.zeros(3, 1, dtype=torch.long))
    for previous, wanted in zip(golden.tensor("lga.prev_loss"), golden.tensor("lga.H_dest"), strict=True):
        found = Gradual()(
            z, torch.zeros(2, dtype=torch.long), one, Triplet().distance, previous=float(previous), draws=Draws(0),
            index=torch.arange(2),
        )  # fmt: skip
        close(found, wanted[None])
