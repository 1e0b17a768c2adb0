"""What a TARGET stands for."""

import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from robustdml.adversary import Adversary, Linf, Pgd
from robustdml.data import DataError, Digits
from robustdml.deep_metric import DeepMetric
from robustdml.distance import Cosine, Spherical
from robustdml.draws import Draws
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


def test_what_a_trained_model_brings_along_cannot_be_said_otherwise(run):
    with pytest.raises(ValueError, match=r"is ranked as it was trained\. Leave --distance out"):
        plan(str(run), distance="Euclidean")
    with pytest.raises(ValueError, match=r"brings its own recipe\. Leave --recipe out"):
        plan(str(run), recipe="act-digits-small")
    with pytest.raises(ValueError, match=r"pixels has none\. Leave --recipe out"):
        plan("pixels", data="digits", recipe="act-digits-small")


@pytest.mark.parametrize(("source", "said"), [
    ("def model():\n    raise KeyError('no')", "mine:model failed when it was called: KeyError: 'no'"),
    ("def model():\n    return lambda x: x / 0 // x.nothing", "failed on two images"),
    ("def model():\n    return lambda x: x.flatten(1).long()", "type torch.int64. Return floating-point numbers"),
    ("def model():\n    return lambda x: (x.flatten(1), 1)", "returned tuple. Return a torch tensor of"),
    ("def model():\n    return lambda x: x", "Flatten or pool its output"),
    ("def model():\n    return lambda x: x.flatten(1)[:, :0]", "returned a tensor of shape"),
])  # fmt: skip
def test_code_of_the_user_that_fails_is_named(tmp_path, monkeypatch, source, said):
    (tmp_path / "mine.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    with pytest.raises(ValueError, match=said):
        plan("mine:model", data="digits").load()
    sys.modules.pop("mine", None)


def test_a_folder_that_is_called_pixels_hides_the_baseline_only_if_it_is_a_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pixels").mkdir()
    assert plan("pixels", data="digits").about["model"] == "Pixels"


def test_images_of_another_kind_are_said_to_be_that(run, tmp_path):
    for name in "abcd":
        for i in range(3):
            (tmp_path / "photos" / name).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (40 * i, 9, 99)).save(tmp_path / "photos" / name / f"{i}.png")
    with pytest.raises(ValueError, match=r"trained on images of 1x8x8, folder:.* has 3x8x8"):
        plan(str(run), data=f"folder:{tmp_path / 'photos'}").load()


def test_a_model_without_a_gradient_is_told_from_one_that_is_robust():
    metric = DeepMetric(wrap(lambda x: x.detach().flatten(1), SHAPE), Spherical())
    with pytest.raises(ValueError, match=r"no gradient with respect to the image.*--search nes"):
        Adversary(Linf(0.1), Pgd(1, 0.1))(
            metric.embedder, torch.rand(2, *SHAPE), lambda z, unit, step: z.sum(1), draws=Draws(0),
            index=torch.arange(2),
        )  # fmt: skip
