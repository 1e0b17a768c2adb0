"""What a TARGET stands for."""

from pathlib import Path

import pytest
import torch
from torch import nn

from robustdml.data import DataError, Digits
from robustdml.distance import Cosine, Spherical
from robustdml.models.backbones import Normalised, wrap
from robustdml.models.embedder import Bfloat16
from robustdml.models.normalise import imagenet
from robustdml.recipe import recipe_to_json
from robustdml.recipes import recipe
from robustdml.runs import WEIGHTS, RunFolder, build, save_weights
from robustdml.targets import about, device_named, plan

SHAPE = (1, 8, 8)


@pytest.fixture
def run(tmp_path):
    """An untrained run folder."""
    made = recipe("act-digits-small")
    folder = RunFolder(tmp_path / "run")
    folder.begin(made, {})
    folder.save("epoch-1-step-0", build(made, SHAPE), made.loss, made, {}, [])
    return folder.path


def test_a_run_folder_knows_its_data_distance_and_place(run):
    found = plan(str(run))
    assert (found.data, found.distance, found.out) == (Digits(), Spherical(), run)
    target = found.load()
    assert target.metric.embed(torch.rand(2, *SHAPE)).shape == (2, 32)
    assert not target.metric.embedder.training
    assert (target.about["name"], target.about["defense"], target.about["model"]) == (
        "act-digits-small",
        "AntiCollapse",
        "SmallConv",
    )
    assert "dataset" not in about(recipe("act-digits-small"))


def test_a_checkpoint_inside_a_run_does_not_collect_results(run):
    found = plan(str(run / "checkpoints" / "last"))
    assert found.out == Path("runs/act-digits-small")
    z = torch.rand(2, *SHAPE)
    assert torch.equal(found.load().metric.embed(z), plan(str(run)).load().metric.embed(z))


def test_weights_with_a_recipe(run, tmp_path):
    made = recipe("act-digits-small")
    save_weights(tmp_path / "mine.safetensors", build(made, SHAPE), made.loss)
    found = plan(str(tmp_path / "mine.safetensors"), recipe="act-digits-small")
    assert found.out == Path("runs/mine")
    assert found.load().data.name == "digits"
    with pytest.raises(DataError, match="not those of C2F2"):
        plan(str(run / "checkpoints" / "last" / WEIGHTS), recipe="fashion:rc2f2:ptripletN", data="digits").load()


def test_the_precision_can_be_chosen(run):
    assert isinstance(plan(str(run), precision="bf16").load().metric.embedder, Bfloat16)


def test_pixels_are_the_identity():
    target = plan("pixels", data="digits", distance="Cosine").load()
    images = torch.rand(3, *SHAPE)
    assert torch.equal(target.metric.embed(images), images.flatten(1))
    assert target.metric.distance == Cosine()
    assert target.out == Path("runs/pixels-digits")


def test_a_dry_plan_of_a_run_needs_neither_data_nor_weights(run):
    (run / "checkpoints" / "last" / WEIGHTS).write_bytes(b"damaged")
    assert plan(str(run)).embedder(SHAPE, trained=False).dim == 32
    with pytest.raises(DataError):
        plan(str(run)).embedder(SHAPE)


def test_a_damaged_recipe_is_a_damaged_checkpoint(run):
    (run / "recipe.json").write_text('{"type": "Recipe", "name": 3}')
    with pytest.raises(DataError, match="cannot be rebuilt"):
        plan(str(run))


def test_wrapping_leaves_the_model_as_it_was():
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64)).train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    embedder = wrap(network, SHAPE)
    assert embedder.dim == 64
    assert network.training
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    with pytest.raises(ValueError, match=r"returned a tensor of shape \(2, 1, 8, 8\)"):
        wrap(nn.Identity(), SHAPE)


def test_grey_images_are_repeated_over_the_channels_a_backbone_wants():
    embedder = Normalised(imagenet(), nn.Flatten(), 192)
    assert embedder(torch.rand(2, *SHAPE)).shape == (2, 192)
    assert torch.equal(embedder(torch.full((1, 1, 8, 8), 0.5)), embedder(torch.full((1, 3, 8, 8), 0.5)))


def test_devices():
    assert device_named("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match="--device must be"):
        device_named("gpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no such device"):
            device_named("cuda")


def test_recipes_in_run_folders_are_whole(run):
    assert recipe(str(run)) == recipe("act-digits-small")
    assert recipe_to_json(recipe(str(run)))["type"] == "Recipe"
