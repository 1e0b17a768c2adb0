import json
from dataclasses import replace

import pytest

from robustdml.data.cub import Cub
from robustdml.data.digits import Digits
from robustdml.data.errors import DataError
from robustdml.data.folder import Folder
from robustdml.data.table import DATASETS, Dataset, dataset, describe, download, unpack
from robustdml.data.transforms import RandomResizedCrop
from robustdml.recipe import override, recipe_from_json, recipe_to_json
from robustdml.recipes.digits import plain_digits_small
from tests.data.fakes import cub, picture


def test_names_lead_to_data_sets():
    assert dataset("digits") == Digits()
    assert dataset("folder:some/where:else") == Folder("some/where:else")
    assert all(dataset(name).name == name for name in DATASETS)


def test_every_data_set_keeps_the_protocol():
    for name in [*DATASETS, "folder:x"]:
        assert isinstance(dataset(name), Dataset)


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_survives_json_and_fits_into_a_recipe(name):
    spec = DATASETS[name]()
    made = replace(plain_digits_small(), data=spec)
    assert recipe_from_json(json.loads(json.dumps(recipe_to_json(made)))) == made
    assert hash(spec) == hash(DATASETS[name]())


def test_views_of_a_data_set_are_set_by_name():
    made = replace(plain_digits_small(), data=Cub())
    other = override(override(made, "data.train", "RandomResizedCrop"), "data.train.mirror", "False")
    assert other.data == Cub(train=RandomResizedCrop(224, mirror=False))
    with pytest.raises(ValueError, match="training views have side 100, test views 224"):
        override(made, "data.train.size", "100")


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [("fashon", "Did you mean fashion?"), ("MNIST", "Did you mean mnist or omniglot?"), ("xyz", "'xyz'. Known:")],
)
def test_unknown_names_are_answered_with_the_nearest(wrong, meant):
    with pytest.raises(ValueError, match="There is no data set") as caught:
        dataset(wrong)
    assert meant in str(caught.value)
    assert f"Known: {', '.join(DATASETS)}, folder:PATH." in str(caught.value)


def test_a_folder_needs_a_path():
    with pytest.raises(ValueError, match="folder: needs a path"):
        dataset("folder:")


def test_a_description_of_complete_data_counts_them(tiny, installed):
    found = describe("fashion", tiny)
    assert found["complete"]
    assert found["problem"] is None
    assert found["images"] == {"train": 30, "query": 10, "gallery": 10}
    assert found["looked_in"][0] == {
        "path": str(installed),
        "exists": True,
        "holds": sorted(path.name for path in installed.iterdir()),
    }
    assert json.loads(json.dumps(found)) == found


def test_a_description_of_missing_data_says_where_and_how(tiny):
    found = describe("fashion", tiny)
    assert not found["complete"]
    assert "was not found" in found["problem"]
    assert found["images"] is found["fingerprint"] is None
    assert found["expected"] == {"train": 60_000, "test": 10_000}
    assert [place["exists"] for place in found["looked_in"]] == [False, False, False]
    assert f"robustdml data fashion --download --data-root {tiny}" in found["get"]
    assert json.loads(json.dumps(found)) == found


def test_digits_are_always_there():
    found = describe("digits")
    assert found["complete"]
    assert found["looked_in"] == []
    assert found["expected"] == {"train": found["images"]["train"], "test": found["images"]["query"]}


def test_damaged_data_are_not_called_missing(tmp_path):
    assert describe(f"folder:{tmp_path / 'none'}")["state"] == "missing"
    assert describe("cub", tmp_path / "none")["state"] == "missing"
    (tmp_path / "file").write_text("")
    for wrong in (tmp_path, tmp_path / "file"):
        found = describe(f"folder:{wrong}")
        assert (found["state"], found["complete"]) == ("damaged", False)
    cub(tmp_path)
    assert describe("cub", tmp_path)["state"] == "damaged"


def test_every_image_is_decoded_if_asked_for(tmp_path):
    for number in range(6):
        picture(tmp_path / "abc"[number // 2] / f"{number}.png", number, size=(4, 4))
    done = []
    with pytest.warns(UserWarning, match="there is one"):
        found = describe(f"folder:{tmp_path}", decode=True, progress=lambda *counts: done.append(counts))
    assert found["complete"]
    assert done[-1] == (6, 6)
    data = (tmp_path / "b/2.png").read_bytes()
    (tmp_path / "b/2.png").write_bytes(data[:50])
    with pytest.warns(UserWarning, match="there is one"):
        found = describe(f"folder:{tmp_path}", decode=True)
    assert found["state"] == "damaged"
    assert "1 of 6 images are damaged" in found["problem"]
    assert "b/2.png cannot be read" in found["problem"]


def test_a_drawn_split_says_so(tmp_path):
    for number in range(8):
        picture(tmp_path / "abcd"[number // 2] / f"{number}.png", number, size=(4, 4))
    assert "2 of its 4 classes were drawn for the test with seed 0" in describe(f"folder:{tmp_path}")["note"]
    assert describe("digits")["note"] == ""


def test_archives_reach_the_data_set_they_are_for(tmp_path):
    with pytest.raises(DataError, match=r"There is no archive .*none.zip"):
        unpack("cub", tmp_path / "none.zip", tmp_path)
    with pytest.raises(DataError, match="There is no archive"):
        unpack("mnist", tmp_path / "none.zip", tmp_path)
    for wrong in ("digits", f"folder:{tmp_path}"):
        with pytest.raises(ValueError, match="has no archive"):
            unpack(wrong, tmp_path / "none.zip", tmp_path)
        with pytest.raises(ValueError, match="has no archive"):
            download(wrong, tmp_path)
    with pytest.raises(DataError, match="no mirror that needs no account"):
        download("cars", tmp_path)


def test_a_missing_folder_is_described(tmp_path):
    found = describe(f"folder:{tmp_path / 'none'}")
    assert "is missing" in found["problem"]
    assert found["expected"] is None
