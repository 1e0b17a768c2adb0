"""Models of one's own and of RobRank as targets of the command line."""

import json
import sys

import pytest
import torch

from robustdml.models import C2F2

MODULE = '''
import torch
from torch import nn

class Clip(nn.Module):
    """Two towers, as CLIP has; only the method for images is of interest."""

    def __init__(self):
        super().__init__()
        self.visual = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 16))

    def forward(self, images, text):
        raise AssertionError("nobody has a text")

    def encode_image(self, images):
        return self.visual((images - 0.5) / 0.5)

def clip():
    torch.manual_seed(0)
    return Clip().train().encode_image

def maps():
    return nn.Conv2d(1, 4, 3)

def embed(images):
    return images.flatten(1)

def embedder():
    return embed

def pooled():
    """As torchvision builds them: convolutions, pooling, a head."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    return nn.Sequential(body, nn.Linear(32, 12)).train()
'''


@pytest.fixture
def mine(here, monkeypatch, call):
    """A command in a folder that holds mymodels.py."""
    (here / "mymodels.py").write_text(MODULE)
    monkeypatch.syspath_prepend(here)
    monkeypatch.delitem(sys.modules, "mymodels", raising=False)
    yield call
    sys.modules.pop("mymodels", None)


@pytest.mark.parametrize("name", ["clip", "pooled", "embedder"])
def test_a_model_of_ones_own_is_evaluated_and_attacked(mine, name):
    code, out, err = mine("evaluate", f"mymodels:{name}", "--data", "digits", "--json", "--quiet")
    assert code == 0, err
    assert json.loads(out)["clean"]["recall@1"] > 0.2
    words = ("attack", f"mymodels:{name}", "--data", "digits", "--attack", "ES", "--steps", 2, "--queries", 16)
    code, out, err = mine(*words, "--json", "--quiet")
    assert code == 0, err
    card = json.loads(out)
    assert all(card["checks"][n]["ok"] for n in ("eval_mode", "nondeterministic", "weights_kept")), card["checks"]
    assert card["attacks"]["ES"]["after"]["shift"] > 0


def test_maps_and_functions_that_are_no_makers_are_explained(mine):
    code, _, err = mine("evaluate", "mymodels:maps", "--data", "digits")
    assert (code, "Flatten or pool its output" in err) == (2, True), err
    code, _, err = mine("evaluate", "mymodels:embed", "--data", "digits")
    assert (code, "def model(): return embed" in err) == (2, True), err


def test_a_checkpoint_of_robrank_needs_its_string(here, call):
    text = "fashion:rc2f2:ptripletN"
    folder = here / "logs_fashion-rc2f2-ptripletN"
    folder.mkdir()
    state = {f"backbone.{n.removeprefix('layers.')}": t for n, t in C2F2().build((1, 28, 28)).state_dict().items()}
    torch.save({"epoch": 7, "state_dict": state, "hparams": object}, folder / "last.ckpt")
    path = "logs_fashion-rc2f2-ptripletN/last.ckpt"
    code, _, err = call("evaluate", path)
    assert (code, f"--recipe {text}" in err) == (2, True)
    code, out, err = call("benchmark", path, "--recipe", text, "--profile", "rob28", "--dry-run", "--json")
    assert code == 0, err
    assert json.loads(out)["shape"] == [1, 28, 28]
    code, _, err = call("evaluate", "nothing.ckpt", "--recipe", text)
    assert (code, "no such file" in err) == (4, True)
    (folder / "last.ckpt").write_bytes(b"damaged")
    code, _, err = call("evaluate", path, "--recipe", text, "--data", "digits")
    assert (code, "not a checkpoint of RobRank" in err) == (4, True)
