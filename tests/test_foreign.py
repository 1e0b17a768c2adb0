"""Checkpoints of RobRank as targets, and pickles that want to run code."""

import argparse
import collections
import os
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from robustdml.data import DataError
from robustdml.foreign import robrank_weights, spelled
from robustdml.models import Backbone, BackboneHybrid
from robustdml.models.backbones import source_of
from robustdml.recipes import recipe
from robustdml.runs import build, load_weights
from robustdml.targets import plan
from robustdml.unpickle import UnreadableError, tensors_in

THEIRS = {  # our layers -> theirs, as their documentation lists them
    "mnist:rc2f2:ptripletN": {"layers.": ""},
    "fashion:rlenet:ptripletN": {"layers.": ""},
    "mnist:cc2f2:ce": {"layers.0": "conv1", "layers.3": "conv2", "layers.7": "fc1", "layers.10": "fc2"},
    "mnist:clenet:ce": {"layers.0": "conv1", "layers.2": "conv2", "layers.5": "fc1", "layers.7": "fc2"},
    "mnist:cslp:ce": {"layers.1": "fc1"},
    "fashion:hc2f2:ptripletN": {"trunk.": "repnet.", "embedding_head.1": "embnet.1", "class_head.2": "clsnet.2"},
}
SHAPE = (1, 28, 28)


class Callback:
    """What a trainer leaves in its checkpoints beside tensors."""

    def __init__(self):
        self.best = float("inf")


def named(name, table):
    ours = max((o for o in table if name.startswith(o)), key=len)
    return name.replace(ours, table[ours], 1)


def lightning(path, weights, **more):
    """A checkpoint as the trainer of RobRank writes it."""
    state = collections.OrderedDict(weights)
    content = {
        "epoch": 7, "global_step": 3752, "pytorch-lightning_version": "1.6.3", "state_dict": state,
        "loops": {"fit_loop": {"state_dict": {}}}, "callbacks": {Callback: Callback(), "path": Path("logs")},
        "optimizer_states": [{"state": {0: {"step": 3, "exp_avg": torch.ones(2)}}}], "lr_schedulers": [],
        "hyper_parameters": argparse.Namespace(dataset="fashion", probe=torch.nn.Linear(1, 1)), **more,
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


def theirs(text, prefix="backbone."):
    """A network of ours with weights by their names, and the weights by ours."""
    made = build(recipe(text), SHAPE)
    own = made.state_dict()
    return own, {prefix + named(n, THEIRS[text]): t for n, t in own.items()}


@pytest.mark.parametrize("text", THEIRS)
@pytest.mark.parametrize("prefix", ["backbone.", "backbone._orig_mod."])
def test_every_small_network_is_read_by_their_names(tmp_path, text, prefix):
    own, weights = theirs(text, prefix)
    path = lightning(tmp_path / "epoch=7-step=3752.ckpt", {**weights, "lossfunc.beta": torch.tensor(0.6)})
    embedder = build(recipe(text), SHAPE)
    found = robrank_weights(path, recipe(text), embedder)
    assert found.keys() == own.keys()
    assert all(torch.equal(found[n], own[n]) for n in own)


@pytest.mark.parametrize("name", ["resnet18", "mnasnet0_5"])
def test_large_networks_keep_their_names_and_bring_their_head(tmp_path, name):
    some = replace(recipe("plain-digits-small"), model=Backbone(name, 8))
    embedder = build(some, (3, 64, 64))
    tensors = source_of(name).network(8, 64).state_dict()
    weights = {f"backbone.{n.replace('classifier.1.', 'classifier.')}": t for n, t in tensors.items()}
    found = robrank_weights(lightning(tmp_path / "last.ckpt", weights), some, embedder)
    load_weights(embedder, found, tmp_path, some)
    assert all(torch.equal(embedder.inner.state_dict()[n], t) for n, t in tensors.items())


def test_an_efficientnet_of_the_library_of_then_is_renamed(tmp_path):
    """Both libraries list layers in the order of execution."""
    some = replace(recipe("plain-digits-small"), model=Backbone("efficientnet_b0", 8))
    embedder = build(some, (3, 64, 64))
    own = embedder.inner.state_dict()
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    names = ["_conv_stem.weight", *(f"_bn0.{k}" for k in norm)]
    for block in range(16):
        layers = ["_depthwise_conv", "_bn1", "_se_reduce", "_se_expand", "_project_conv", "_bn2"]
        for layer in ["_expand_conv", "_bn0", *layers] if block else layers:
            kinds = norm if "_bn" in layer else ("weight", "bias") if "_se" in layer else ("weight",)
            names += [f"_blocks.{block}.{layer}.{k}" for k in kinds]
    names += ["_conv_head.weight", *(f"_bn1.{k}" for k in norm), "_fc.weight", "_fc.bias"]
    weights = {f"backbone.{n}": t for n, t in zip(names, own.values(), strict=True)}
    found = robrank_weights(lightning(tmp_path / "last.ckpt", weights), some, embedder)
    assert all(torch.equal(found[f"inner.{n}"], t) for n, t in own.items())
    assert len(found) == len(own)
    del weights["backbone._blocks.3._bn0.weight"]
    weights["backbone._blocks.16._bn0.weight"] = torch.ones(1)
    found = robrank_weights(lightning(tmp_path / "last.ckpt", weights), some, embedder)
    with pytest.raises(DataError, match=r"not those of Backbone"):
        load_weights(embedder, found, tmp_path, some)


def test_a_hybrid_on_a_backbone_has_the_parts_of_the_small_one(tmp_path):
    some = replace(recipe("plain-digits-small"), model=BackboneHybrid("resnet18", 8, 5))
    embedder = build(some, (3, 64, 64))
    own = embedder.state_dict()
    parts = {"trunk.inner.": "repnet.", "embedding_head.": "embnet.", "class_head.": "clsnet."}
    weights = {f"backbone.{named(n, parts)}": t for n, t in own.items() if any(n.startswith(p) for p in parts)}
    found = robrank_weights(lightning(tmp_path / "last.ckpt", weights), some, embedder)
    load_weights(embedder, found, tmp_path, some)
    assert {n for n in own if n not in found} <= {"trunk.normalise.mean", "trunk.normalise.std"}


def test_what_a_folder_spells_is_a_hint_that_must_be_confirmed(tmp_path):
    text = "fashion:rlenet:ptripletN"
    path = tmp_path / "logs_fashion-rlenet-ptripletN" / "lightning_logs" / "version_0" / "checkpoints" / "last.ckpt"
    own, weights = theirs(text)
    lightning(path, weights)
    assert spelled(path) == text
    assert spelled(tmp_path / "last.ckpt") is None
    with pytest.raises(ValueError, match=rf"Its folder spells {text}; if that is what it is: --recipe {text}"):
        plan(str(path))
    with pytest.raises(DataError, match="no such file"):
        plan(str(tmp_path / "nothing.ckpt"))
    planned = plan(str(path), recipe=text)
    assert planned.out == Path("runs/last")
    embedder = planned.embedder(SHAPE)
    assert all(torch.equal(embedder.state_dict()[n], t) for n, t in own.items())


def test_weights_of_another_recipe_are_refused(tmp_path):
    _, weights = theirs("fashion:rlenet:ptripletN")
    planned = plan(str(lightning(tmp_path / "last.ckpt", weights)), recipe="mnist:rc2f2:ptripletN")
    with pytest.raises(DataError, match="not those of C2F2"):
        planned.embedder(SHAPE)


class Bomb:
    def __init__(self, function, *arguments):
        self.what = (function, arguments)

    def __reduce__(self):
        return self.what


@pytest.mark.parametrize("place", ["callbacks", "state_dict", "key"])
def test_a_checkpoint_that_wants_to_run_code_does_not(tmp_path, place):
    marker = tmp_path / "it ran"
    bomb = Bomb(os.system, f"touch '{marker}'")
    own, weights = theirs("fashion:rlenet:ptripletN")
    if place == "callbacks":
        path = lightning(tmp_path / "last.ckpt", weights, bomb=[bomb, Bomb(os.system, f"touch '{marker}'")])
    elif place == "state_dict":
        path = lightning(tmp_path / "last.ckpt", {**weights, "backbone.more": bomb})
    else:
        path = lightning(tmp_path / "last.ckpt", weights, more={bomb: 1})
    found = plan(str(path), recipe="fashion:rlenet:ptripletN").embedder(SHAPE).state_dict()
    assert not marker.exists()
    assert all(torch.equal(found[n], own[n]) for n in own)
    torch.load(path, weights_only=False)  # whoever trusts the file does run it
    assert marker.exists()


def test_a_file_cannot_rewrite_the_reader(tmp_path):
    """A pickle may set attributes of what it names: here of the function that makes tensors."""
    program = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nq\x00N}q\x01X\x0c\x00\x00\x00__defaults__q\x02)s\x86b."
    with zipfile.ZipFile(tmp_path / "evil.ckpt", "w") as archive:
        archive.writestr("archive/data.pkl", program)
    with pytest.raises(UnreadableError):
        tensors_in(tmp_path / "evil.ckpt")
    torch.save({"state_dict": {"a": torch.arange(3)}}, tmp_path / "good.ckpt")
    assert torch.equal(tensors_in(tmp_path / "good.ckpt")["a"], torch.arange(3))


def test_views_and_kinds_of_numbers_survive(tmp_path):
    whole = torch.arange(24, dtype=torch.float64).reshape(4, 6)
    tensors = {
        "view": whole[1:3, ::2], "turned": whole.T, "none": torch.empty(0, 3), "number": torch.tensor(5),
        "half": torch.ones(3, dtype=torch.bfloat16), "flags": torch.tensor([True, False]),
        "weight": torch.nn.Parameter(torch.ones(2)),
    }  # fmt: skip
    torch.save({"state_dict": tensors}, tmp_path / "some.ckpt")
    found = tensors_in(tmp_path / "some.ckpt")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[n], t) and found[n].dtype == t.dtype for n, t in tensors.items())


def corrupted(path, tmp_path, change):
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "changed.ckpt", "w") as new:
        for name in old.namelist():
            content = change(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
    return tmp_path / "changed.ckpt"


def test_a_small_file_does_not_fill_the_memory(tmp_path):
    torch.save({"state_dict": {"x": torch.zeros(1).as_strided((1 << 40,), (0,))}}, tmp_path / "bomb.ckpt")
    with pytest.raises(UnreadableError, match="x has more entries than its file has numbers"):
        tensors_in(tmp_path / "bomb.ckpt")
    torch.save({"state_dict": {"x": torch.zeros(1000)}}, tmp_path / "plain.ckpt")
    with (
        zipfile.ZipFile(tmp_path / "plain.ckpt") as plain,
        zipfile.ZipFile(tmp_path / "small.ckpt", "w", zipfile.ZIP_DEFLATED) as small,
    ):
        for name in plain.namelist():
            small.writestr(name, plain.read(name))
    with pytest.raises(UnreadableError, match="x is compressed, which PyTorch never does"):
        tensors_in(tmp_path / "small.ckpt")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda n, c: c[:-4] if n.endswith("data/0") else c, "incomplete"),
        (lambda n, c: None if n.endswith("data/0") else c, "damaged"),
        (lambda n, c: c[: len(c) // 2] if n.endswith("data.pkl") else c, "damaged"),
        (lambda n, c: None if n.endswith("data.pkl") else c, r"holds no data\.pkl"),
        (lambda n, c: pickle.dumps([1]) if n.endswith("data.pkl") else c, "holds no 'state_dict'"),
        (lambda n, c: b"big" if n.endswith("byteorder") else c, "big-endian"),
    ],
)
def test_damaged_checkpoints_are_named(tmp_path, change, said):
    _, weights = theirs("fashion:rlenet:ptripletN")
    path = corrupted(lightning(tmp_path / "last.ckpt", weights), tmp_path, change)
    with pytest.raises(DataError, match=rf"not a checkpoint of RobRank: .*{said}.*Nothing in it was executed"):
        robrank_weights(path, recipe("fashion:rlenet:ptripletN"), build(recipe("fashion:rlenet:ptripletN"), SHAPE))


def test_files_of_other_formats(tmp_path):
    path = tmp_path / "last.ckpt"
    old = {"_use_new_zipfile_serialization": False}
    for write, said in (
        (lambda: path.write_bytes(b"no zip"), "not in the zip format"),
        (lambda: torch.save({"state_dict": {}}, path, **old), "not in the zip format"),
        (
            lambda: torch.save({"state_dict": {"encoder.weight": torch.ones(1)}}, path),
            r"called backbone\.…; found enco",
        ),
    ):
        write()
        with pytest.raises(DataError, match=said):
            robrank_weights(path, recipe("mnist:rc2f2:ptripletN"), build(recipe("mnist:rc2f2:ptripletN"), SHAPE))
