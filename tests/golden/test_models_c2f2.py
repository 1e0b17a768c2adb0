"""Published small networks: outputs and gradients with generated weights, and four training steps."""

import numpy as np
import torch

from robustdml.draws import Draws
from robustdml.losses import Triplet
from robustdml.models import MODELS
from robustdml.models.normalise import imagenet, inception_bn
from robustdml.types import Triplets
from tests.golden.cases import for_each

FILE = "models_c2f2"
COVERS = [r"(rc2f2|rlenet|cc2f2|clenet|cslp|hc2f2)/", r"norm/", r"step/", r"(nets|seed|x)$"]
OURS = {
    "rc2f2": "C2F2",
    "rlenet": "LeNet",
    "cc2f2": "C2F2Classifier",
    "clenet": "LeNetClassifier",
    "cslp": "Perceptron",
    "hc2f2": "C2F2Hybrid",
}


def splitmix(seed, count):
    """Uniform numbers in [0, 1) of the published weight generator."""
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + (np.arange(count, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53


def generated(net, seed):
    """A double-precision network of ours with the weights of the published generator, in state-dict order."""
    network = MODELS[OURS[net]]().build((1, 28, 28)).double().eval()
    parameters = list(network.parameters())
    u = splitmix(seed, sum(p.numel() for p in parameters))
    start = 0
    for p in parameters:
        entries = torch.from_numpy(2 * u[start : start + p.numel()] - 1).reshape(p.shape)
        start += p.numel()
        fan_in = p[0].numel()
        p.data = entries * ((3 / fan_in) ** 0.5 if p.ndim > 1 else 0.1)
    return network


def of_the_file(golden, net):
    return generated(net, int(golden.arrays["seed"]) + golden.strings("nets").index(net))


def relative(ours, published, tolerance=1e-10):
    scale = published.abs().max().clamp_min(1e-300)
    assert ours.shape == published.shape
    assert (ours - published).abs().max() <= tolerance * scale


@for_each(lambda golden: golden.strings("nets"))
def test_architecture_is_the_published_one(golden, case):
    network = of_the_file(golden, case)
    parameters = list(network.parameters())
    assert ["x".join(map(str, p.shape)) for p in parameters] == golden.strings(f"{case}/param_shapes")
    relative(torch.stack([p.sum() for p in parameters]).detach(), golden.tensor(f"{case}/param_sums"))
    first = torch.stack([p.flatten()[:3] for p in parameters]).detach()
    relative(first, golden.tensor(f"{case}/param_first3"))
    layers = [n.removeprefix("layers.") for n, _ in network.named_parameters()]
    published = golden.strings(f"{case}/param_names")
    assert [n.rsplit(".", 1)[1] for n in layers] == [n.rsplit(".", 1)[1] for n in published]


@for_each(lambda golden: golden.strings("nets"))
def test_outputs_and_gradients_equal_the_published_ones(golden, case):
    network = of_the_file(golden, case)
    x = golden.tensor("x").double().requires_grad_()
    if f"{case}/repres" in golden:
        outputs = network.heads(x)
        for ours, key in zip(outputs, ("repres", "embeds", "logits")):
            relative(ours.detach(), golden.tensor(f"{case}/{key}"))
        assert torch.equal(network(x), torch.cat(outputs[1:], dim=1))
    else:
        outputs = (network(x),)
        relative(outputs[0].detach(), golden.tensor(f"{case}/out"))
    loss = sum(o.square().mean() for o in outputs)
    relative(loss.detach(), golden.tensor(f"{case}/loss"))
    gradient_x, *gradients = torch.autograd.grad(loss, [x, *network.parameters()])
    relative(gradient_x, golden.tensor(f"{case}/grad_x"))
    relative(torch.stack([g.norm() for g in gradients]), golden.tensor(f"{case}/grad_param_norms"))


def test_normalisation_equals_the_published_one(golden):
    x = golden.tensor("norm/x")
    torch.testing.assert_close(imagenet()(x), golden.tensor("norm/renorm"), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(imagenet().inverse(x), golden.tensor("norm/denorm"), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(inception_bn()(x), golden.tensor("norm/renorm_ibn"), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(imagenet().inverse(imagenet()(x)), x, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(inception_bn().inverse(inception_bn()(x)), x, rtol=1e-6, atol=1e-6)


def test_the_two_faulty_inverses_are_understood_and_not_ours(golden):
    """Upstream swaps mean and deviation for BN-Inception and divides where it should multiply for pictures."""
    x, ours = golden.tensor("norm/x"), inception_bn()
    mean, std = ours.mean.double(), ours.std.double()
    faulty = [(x.flip(1) - mean) / std, (x.flip(1) * mean) + std, x * mean + std, (x * mean + std).flip(1)]
    published = golden.tensor("norm/denorm_ibn")
    assert any(torch.allclose(f, published, rtol=1e-5, atol=1e-6) for f in faulty)
    assert not torch.allclose(ours.inverse(x), published, rtol=1e-3)
    plain = imagenet()
    shown = x / plain.std.double() + plain.mean.double()
    torch.testing.assert_close(shown, golden.tensor("norm/xdnorm"), rtol=1e-6, atol=1e-6)


def test_four_training_steps_equal_the_published_ones(golden):
    network = generated("rlenet", int(golden.arrays["step/seed"])).train()
    images, labels = golden.tensor("step/x").double().flatten(0, 1), golden.tensor("step/labels").flatten()
    triplets = Triplets(*golden.tensor("step/triplets").unbind(dim=1))
    optimiser = torch.optim.Adam(
        network.parameters(), lr=golden.number("step/lr"), weight_decay=golden.number("step/weight_decay")
    )
    for published in golden.tensor("step/losses"):
        loss = Triplet()(network(images), labels, triplets, draws=Draws(0), index=torch.arange(len(labels)))
        torch.testing.assert_close(loss.detach(), published, atol=1e-7, rtol=0)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    torch.testing.assert_close(network(images).detach(), golden.tensor("step/out_after"), atol=1e-6, rtol=0)
