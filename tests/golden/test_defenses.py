"""Published training steps: adversarial images, loss, gradients and BatchNorm state."""

import pytest
import torch
from torch import nn

from robustdml.adversary import Adversary, Linf, Pgd
from robustdml.defenses import AntiCollapse, ShiftTraining
from robustdml.draws import Draws
from robustdml.energies import hardness
from robustdml.losses import Contrastive, Triplet
from robustdml.models.embedder import Layers, frozen
from robustdml.types import Batch, Triplets
from tests.golden.cases import DISTANCE, GivenTriplets, Recorded, for_each

FILE = "defenses"
DEFENSE = {"est": ShiftTraining, "act": AntiCollapse}
COVERS = [
    r"(est_[NEC]|est_N_(fgsm|bn|bnfrozen)|est_contrast)\.",
    r"(act_[NEC]|act_N_(fgsm|bn|bnfrozen)|act_contrast|act_softhard)\.",
    r"(net_plain|net_bn|triplets)\.",
    r"(cases|images|labels)$",
]
LOSS = {"triplet": Triplet, "contrast": Contrastive}


def covered(golden):
    kept = []
    for name in golden.strings("cases"):
        defense, loss = str(golden.arrays[f"{name}.opt.defense"]), str(golden.arrays[f"{name}.opt.loss"])
        if defense in DEFENSE and any(family in loss for family in LOSS):
            kept.append(name)
    return kept


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


def loss_of(golden, name):
    option = str(golden.arrays[f"{name}.opt.loss"])
    metric, softhard = option[-1], option.startswith("pstriplet")
    triplets = Triplets(*golden.tensor(f"triplets.{'softhard' if softhard else 'random'}"))
    family = LOSS["contrast" if "contrast" in option else "triplet"]
    margin = {"triplet": 1.0 if metric == "E" else 0.2, "contrast": 0.0 if metric == "C" else 1.0}
    return family(DISTANCE[metric], GivenTriplets(triplets), margin["contrast" if "contrast" in option else "triplet"])


class Seen:
    """A search that keeps what the wrapped one found."""

    def __init__(self, search):
        self.search, self.gradients = search, search.gradients

    def __call__(self, energy, x, ball, *, achieved=None, coupled=False, draws, index):
        self.found = self.search(energy, x, ball, achieved=achieved, coupled=coupled, draws=draws, index=index)
        return self.found


def take_step(golden, name, model, eps=None):
    """The step of a case on `model`, and the adversarial images it trained on."""
    search = Seen(Pgd(golden.number(f"{name}.opt.steps"), golden.number(f"{name}.opt.alpha")))
    ball = Linf(golden.number(f"{name}.opt.eps") if eps is None else eps)
    defense = DEFENSE[str(golden.arrays[f"{name}.opt.defense"])](Adversary(ball, search))
    images, labels = golden.tensor("images"), golden.tensor("labels")
    batch = Batch(images, labels, torch.arange(len(labels)))
    noise = {"shift": golden.tensor(f"{name}.noise") + 1} if f"{name}.noise" in golden else {}
    loss = loss_of(golden, name)
    step = defense(model, loss, batch, memory={}, progress=0.0, draws=Recorded(**noise), mean=lambda x: x)
    return loss, batch, step, search.found


@for_each(covered)
def test_training_step_equals_the_published_one(golden, case):
    if case == "est_N_bn":
        pytest.skip("has its own test: upstream's logging pass moves the running statistics first")
    model = network(golden, str(golden.arrays[f"{case}.opt.net"]))
    loss, batch, step, found = take_step(golden, case, model)
    check_adversarial_images(golden, case, found)
    check_gradients(golden, case, model, step)
    check_hardness(golden, case, loss, batch, found)


def check_adversarial_images(golden, case, found):
    stack = found if found.ndim == 4 else torch.cat(found.unbind(dim=1))
    torch.testing.assert_close(stack, golden.tensor(f"{case}.adv"), atol=1e-9, rtol=0)


def check_gradients(golden, case, model, step):
    torch.testing.assert_close(step.loss.detach(), golden.tensor(f"{case}.loss"), atol=1e-9, rtol=0)
    step.loss.backward()
    for name, p in model.layers.named_parameters():
        torch.testing.assert_close(p.grad, golden.tensor(f"{case}.grad.{name}"), atol=1e-9, rtol=0)
    for name, buffer in model.layers.named_buffers():
        key = f"{case}.buffers.{name}"
        if key in golden:
            torch.testing.assert_close(buffer, golden.tensor(key), atol=1e-9, rtol=0)


def check_hardness(golden, case, loss, batch, found):
    """Hardness of the training triplets before and after the inner problem."""
    if f"{case}.H_src" not in golden:
        return
    model = network(golden, str(golden.arrays[f"{case}.opt.net"]))
    with frozen(model), torch.no_grad():
        a, p, n = loss.miner.triplets.of(model(batch.images))
        torch.testing.assert_close(hardness(loss.distance, a, p, n), golden.tensor(f"{case}.H_src"), atol=1e-9, rtol=0)
        p, n = model(found[:, 0]), model(found[:, 1])
        torch.testing.assert_close(hardness(loss.distance, a, p, n), golden.tensor(f"{case}.H_adv"), atol=1e-9, rtol=0)


@for_each(covered)
def test_benign_loss_equals_the_published_one(golden, case):
    if case == "est_N_bn":
        pytest.skip("upstream logs it in training mode there")
    model = network(golden, str(golden.arrays[f"{case}.opt.net"]))
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
    _, _, step, found = take_step(golden, case, model)
    check_adversarial_images(golden, case, found)
    check_gradients(golden, case, model, step)


def test_a_wrong_radius_would_be_noticed(golden):
    name = covered(golden)[0]
    model = network(golden, str(golden.arrays[f"{name}.opt.net"]))
    *_, found = take_step(golden, name, model, eps=1e-6)
    with pytest.raises(AssertionError):
        check_adversarial_images(golden, name, found)
