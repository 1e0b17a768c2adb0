"""Backbones: shapes, heads, frozen statistics, published weights and what is refused."""

import copy
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from robustdml.models import Backbone, BackboneHybrid, Pretrainable, SmallResNet
from robustdml.models.backbones import head_of, source_of, timm_embedder
from robustdml.models.embedder import Bfloat16, fill, frozen
from robustdml.models.inception import BLOCKS, BnInception
from robustdml.models.pretrained import SOURCES
from robustdml.models.wrapped import batch_norms, wrap
from tests.toys import generator

COLOUR = (3, 64, 64)
SMALL = ["resnet18", "mnasnet0_5", "mnasnet1_0", "mnasnet1_3", "efficientnet_b0", "bninception"]
LARGE = sorted(SOURCES.keys() - set(SMALL))


def images(shape=COLOUR, count=2):
    return torch.rand(count, *shape, generator=generator())


def statistics(embedder):
    return {n: t.clone() for n, t in embedder.state_dict().items() if "running" in n or "batches" in n}


@pytest.mark.parametrize("name", SMALL)
def test_a_backbone_makes_vectors_and_gradients_reach_the_pixels(name):
    embedder = Backbone(name, 7).build(COLOUR).eval()
    x = images().requires_grad_()
    z = embedder(x)
    assert z.shape == (2, 7) == (2, embedder.dim)
    (gradient,) = torch.autograd.grad(z.square().sum(), x)
    assert bool((gradient.flatten(1).abs().sum(dim=1) > 0).all())


@pytest.mark.parametrize("name", LARGE)
def test_a_large_backbone_makes_vectors(name):
    side = source_of(name).side()
    with torch.device("meta"):
        embedder = Backbone(name, 512).build((3, side, side))
        assert embedder(torch.empty(2, 3, side, side)).shape == (2, 512)


@pytest.mark.parametrize("name", [*SMALL, *LARGE])
def test_the_head_is_one_linear_layer_of_the_wanted_width(name):
    head = head_of(source_of(name), 7)
    assert {n.rpartition(".")[2] for n in head} == {"weight", "bias"}
    with torch.device("meta"):
        weights = source_of(name).network(7, source_of(name).side()).state_dict()
    assert sorted(weights[n].dim() for n in head) == [1, 2]
    assert {weights[n].shape[0] for n in head} == {7}
    assert len(head) == 2


def test_features_without_a_head():
    assert Backbone("resnet18", 0).build(COLOUR).dim == 512
    assert Backbone("mnasnet0_5", 0).build(COLOUR).dim == 1280
    assert Backbone("bninception", 0).build(COLOUR).dim == 1024
    assert timm_embedder("mobilenetv3_small_050", COLOUR, pretrained=False).dim == 1024  # wider than its feature maps


def test_grey_images_are_repeated_over_the_colours():
    embedder = Backbone("resnet18", 7).build((1, 64, 64)).eval()
    grey = images((1, 64, 64))
    torch.testing.assert_close(embedder(grey), embedder(grey.expand(-1, 3, -1, -1)))


def test_bn_inception_has_the_size_of_the_published_network():
    assert sum(p.numel() for p in BnInception(1000).parameters()) == 11_295_240
    widths, channels = {}, 192
    for name, block in BLOCKS.items():
        channels = widths[name] = block.width(channels)
    assert widths == {"3a": 256, "3b": 320, "3c": 576, "4a": 576, "4b": 576, "4c": 608, "4d": 608, "4e": 1056,
                      "5a": 1024, "5b": 1024}  # fmt: skip


def test_bn_inception_branches_meet_for_multiples_of_32_only():
    for side in (32, 96):
        assert BnInception(5).eval()(images((3, side, side))).shape == (2, 5)
    with pytest.raises(ValueError, match="multiple of 32, got 28x28"):
        Backbone("bninception", 5).build((3, 28, 28))


@pytest.mark.parametrize("stride", [1, 2])
def test_the_stem_of_small_resnet_keeps_or_halves_the_resolution(stride):
    embedder = SmallResNet(16, stride).build((3, 32, 32))
    maps = []
    embedder.inner.layers[2].register_forward_hook(lambda m, i, o: maps.append(o.shape))
    assert embedder(images((3, 32, 32))).shape == (2, 16)
    assert maps == [(2, 64, 32 // stride, 32 // stride)]
    assert sum(p.numel() for p in embedder.parameters()) == 11_168_832 + 16 * 514
    smallest = 8 * stride
    least = SmallResNet(16, stride).build((1, smallest, smallest))
    maps, hook = [], lambda m, i, o: maps.append(i[0].shape[-1])
    least.inner.layers[9].conv1.register_forward_hook(hook)
    least(images((1, smallest, smallest)))
    assert maps == [2]  # of single pixels PyTorch 2.13 returns weight gradients in bfloat16 that it never wrote
    with pytest.raises(ValueError, match=f"at least {smallest}x{smallest}, got 3 channels of 7x7"):
        SmallResNet(16, stride).build((3, 7, 7))
    with pytest.raises(ValueError, match=r"stride 2 needs .* at least 16x16, got 1 channels of 8x8"):
        SmallResNet(16, 2).build((1, 8, 8))
    with pytest.raises(ValueError, match="stride 1 or 2, got 4"):
        SmallResNet(stride=4)


# ---- batch statistics


@pytest.mark.parametrize("model", [Backbone("resnet18", 7, "frozen-statistics"),
                                   BackboneHybrid("mnasnet0_5", 7, 3, "frozen-statistics")])  # fmt: skip
def test_frozen_statistics_never_move_whoever_calls_train(model):
    embedder = model.build(COLOUR)
    before = statistics(embedder)
    for wake in (
        embedder.train,
        Bfloat16(embedder).train,
        lambda: [m.train() for m in embedder.modules()],
        lambda: [setattr(m, "training", True) for m in embedder.modules()],
        copy.deepcopy(embedder).train,
    ):
        wake()
        with frozen(embedder):
            embedder(images())
        embedder(images())
        assert all(torch.equal(before[n], t) for n, t in statistics(embedder).items())
    embedder.train()
    assert not any(m.training for m in batch_norms(embedder))
    assert any(m.training for m in embedder.modules())


def test_frozen_statistics_still_train_scale_and_shift():
    embedder = Backbone("resnet18", 7, "frozen-statistics").build(COLOUR).train()
    trained = {id(p) for p in embedder.parameter_groups()["trunk"]}
    layers = [m for m in embedder.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(id(m.weight) in trained and id(m.bias) in trained for m in layers)
    embedder(images()).square().sum().backward()
    assert all(float(m.bias.grad.abs().sum()) > 0 for m in layers)


def test_an_image_does_not_depend_on_its_batch_if_statistics_are_frozen():
    x = images(count=3).double()
    embedder = Backbone("resnet18", 7, "frozen-statistics").build(COLOUR).double().train()
    torch.testing.assert_close(embedder(x)[:1], embedder(x[:1]))
    learning = Backbone("resnet18", 7, "train").build(COLOUR).double().train()
    assert float((learning(x)[:1] - learning(x[[0, 1]])[:1]).detach().abs().max()) > 1e-3


def test_learning_statistics_move_in_training_alone():
    embedder = Backbone("resnet18", 7, "train").build(COLOUR).train()
    before = statistics(embedder)
    with frozen(embedder):
        embedder(images())
    assert all(torch.equal(before[n], t) for n, t in statistics(embedder).items())
    embedder(images())
    assert not all(torch.equal(before[n], t) for n, t in statistics(embedder).items())


# ---- published weights


@pytest.mark.parametrize("model", [Backbone("resnet18", 7), Backbone("bninception", 7), Backbone("mnasnet0_5", 7),
                                   BackboneHybrid("resnet18", 7, 3), Backbone("swin_tiny", 7)])  # fmt: skip
def test_published_weights_fill_everything_but_the_head(model):
    source = source_of(model.name)
    torch.manual_seed(1)
    file = {
        n: t + 1 if t.is_floating_point() else t for n, t in source.network(1000, source.side()).state_dict().items()
    }
    side = source.side()
    embedder = model.build((3, side, side))
    assert isinstance(model, Pretrainable)
    found = model.published(embedder, file)
    fill(embedder, found)
    trunk = "trunk.inner." if isinstance(model, BackboneHybrid) else "inner."
    head = {trunk + n for n in head_of(source, 1000)} if not isinstance(model, BackboneHybrid) else set()
    own = {n for n in embedder.state_dict() if n.startswith(trunk)} - head
    assert {n for n in found if "num_batches" not in n} == {n for n in own if "num_batches" not in n}
    assert all(torch.equal(found[n], embedder.state_dict()[n]) for n in found)
    assert all(torch.equal(file[n.removeprefix(trunk)], t) for n, t in found.items())


def test_older_swin_files_are_understood():
    source = source_of("swin_tiny")
    network = source.network(5, 224)
    now = network.state_dict()

    def older(name):
        if ".downsample" in name:
            layer = int(name.split(".")[1])
            return name.replace(f"layers.{layer}.", f"layers.{layer - 1}.")
        return name.replace("head.fc.", "head.")

    file = {older(n): t for n, t in now.items()}
    assert "head.weight" in file
    adapted = source.adapted(file, network)
    assert all(torch.equal(adapted[n], t) for n, t in now.items())


def test_weights_of_another_network_are_refused_by_name():
    model = Backbone("resnet18", 7)
    embedder = model.build(COLOUR)
    with pytest.raises(ValueError, match=r"not those of resnet18: \d+ of \d+ tensors are missing.*timm's resnet18\.tv"):
        model.published(embedder, {"conv1.weight": torch.zeros(64, 3, 7, 7)})
    other = source_of("resnet50").network(1000, 224).state_dict()
    with pytest.raises(ValueError, match="not those of resnet18"):
        model.published(embedder, other)


def test_without_network_the_error_names_both_ways_out(tmp_path):
    """In a process of its own, with an empty cache and the hub told to stay offline."""
    program = (
        "import torch; from robustdml.models import Backbone\n"
        "model = Backbone('resnet18', 7)\n"
        "try: model.published(model.build((3, 64, 64)), None)\n"
        "except ValueError as error: print(error)\n"
    )
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "TORCH_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False,
        env=os.environ | offline,
    )  # fmt: skip
    assert "published weights of resnet18 could not be downloaded" in done.stdout, done.stderr[-800:]
    assert "copy its cache" in done.stdout
    assert "--start.file WEIGHTS.safetensors" in done.stdout


def test_bn_inception_is_published_nowhere():
    model = Backbone("bninception", 7)
    with pytest.raises(ValueError, match=r"no maintained library publishes weights.*--start\.file"):
        model.published(model.build(COLOUR), None)


# ---- what is refused


@pytest.mark.parametrize(
    ("name", "said"),
    [("resnet19", "no backbone 'resnet19'. Did you mean resnet18"), ("timm:", "no backbone"), ("", "no backbone")],
)
def test_unknown_backbones(name, said):
    with pytest.raises(ValueError, match=said):
        Backbone(name)


def test_unknown_models_and_tags_of_timm():
    with pytest.raises(ValueError, match=r"timm has no model 'resnt18'"):
        Backbone("timm:resnt18").build(COLOUR)
    with pytest.raises(ValueError, match=r"timm cannot make 'resnet18\.nothing'"):
        Backbone("timm:resnet18.nothing").build(COLOUR)


def test_images_that_a_network_does_not_take():
    with pytest.raises(ValueError, match="takes images of 224x224 only, got 64x64"):
        Backbone("swin_tiny").build(COLOUR)
    with pytest.raises(ValueError, match="square grey or colour images, got 2 channels"):
        Backbone("resnet18").build((2, 64, 64))
    with pytest.raises(ValueError, match="square"):
        Backbone("resnet18").build((3, 64, 32))


class Maps(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.body(x)

    def pooled(self, x):
        return self.body(x).mean(dim=(2, 3))


def test_maps_instead_of_vectors_are_refused():
    with pytest.raises(ValueError, match=r"Maps returned a tensor of shape \(2, 4, 62, 62\). Flatten or pool"):
        wrap(Maps(), COLOUR)


def test_a_method_of_a_network_brings_the_network_along():
    network = Maps().train()
    embedder = wrap(network.pooled, COLOUR)
    assert embedder.dim == 4
    assert len(list(embedder.parameters())) == 2
    with frozen(embedder):
        assert not network.training
        assert not network.body.weight.requires_grad


def test_a_file_of_published_weights_starts_a_training(tmp_path):
    from robustdml.data import DataError
    from robustdml.models import Pretrained
    from robustdml.recipe import override
    from robustdml.recipes import recipe
    from robustdml.start import begin

    base = override(recipe("plain-digits-small"), "model", "Backbone")
    base = override(override(base, "start", "Pretrained"), "model.batchnorm", "frozen-statistics")
    assert base.start == Pretrained()
    weights = source_of("resnet18").network(1000, 224).state_dict()
    save_file(weights, tmp_path / "weights.safetensors")
    started = override(base, "start.file", str(tmp_path / "weights.safetensors"))
    embedder = started.model.build((1, 32, 32))
    begin(embedder, started)
    assert torch.equal(embedder.inner.conv1.weight, weights["conv1.weight"])
    with pytest.raises(DataError, match="no such file"):
        begin(embedder, override(base, "start.file", str(tmp_path / "nothing.safetensors")))
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(DataError, match=r"other\.safetensors: the weights are not those of resnet18"):
        begin(embedder, override(base, "start.file", str(tmp_path / "other.safetensors")))
    with pytest.raises(ValueError, match="frozen batch statistics needs weights"):
        override(base, "start", "none")
    with pytest.raises(ValueError, match="no weights are published for SmallConv"):
        override(recipe("plain-digits-small"), "start", "Pretrained")
