"""Where data sets are looked for, and archives that are unpacked: genuine, wrong, damaged and malicious."""

import hashlib
import os
import stat
import tarfile
import zipfile
from dataclasses import replace

import pytest

from robustdml.data import DATASETS
from robustdml.data.cub import Cub
from robustdml.data.errors import DataError, MissingData
from robustdml.data.layout import Layout, Remote, Stored, download, unpack, walk
from tests.data.fakes import CARS, CIFAR10, CUB, FAKES, SOP, add_to_tar, cars, cifar10, cub, packed, sop

EVERY = pytest.mark.parametrize("name", FAKES)


@pytest.fixture(autouse=True)
def nowhere(monkeypatch, tmp_path):
    """No data set anywhere but below the root that a test names."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("ROBUSTDML_DATA", raising=False)


def tree(folder):
    """Every path below a folder, with the content of files."""
    return {
        str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")
    }  # fmt: skip


def test_every_data_set_with_a_layout_has_a_stand_in_here():
    assert {name for name, cls in DATASETS.items() if isinstance(cls(), Stored)} == FAKES.keys()


@EVERY
def test_a_data_set_is_found_below_the_root(tmp_path, name):
    spec, make = FAKES[name]
    make(tmp_path)
    images = spec.load(tmp_path)
    train, test = spec.split_sizes
    assert (len(images.split.train), len(images.split.query)) == (train, test)
    assert images.num_classes == spec.num_classes
    assert images.shape == spec.shape
    assert images.batch(images.split.query).shape == (test, *images.shape)
    assert images.split.query.equal(images.split.gallery)


@EVERY
@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_an_archive_is_unpacked_and_can_be_loaded(tmp_path, name, kind):
    spec, make = FAKES[name]
    place = make(tmp_path / "elsewhere")
    expected = spec.load(tmp_path / "elsewhere")
    archive = packed(tmp_path / f"a.{kind}", place, top="some/folder")
    found = unpack(spec, archive, tmp_path / "root")
    assert found == spec.places(tmp_path / "root")[0]
    images = spec.load(tmp_path / "root")
    assert images.fingerprint() == expected.fingerprint()
    assert [p.name for p in (tmp_path / "root").rglob(".unpack*")] == []


@EVERY
def test_other_counts_are_refused_when_loading_and_when_unpacking(tmp_path, name):
    spec, make = FAKES[name]
    place = make(tmp_path)
    wrong = replace(spec, expected=(spec.expected[0] + 1, *spec.expected[1:]))
    with pytest.raises(DataError, match=f"training and {spec.expected[1]} test images") as caught:
        wrong.load(tmp_path)
    assert f"robustdml data {name} --from ARCHIVE" in str(caught.value)
    with pytest.raises(DataError, match=rf"a.zip is not the {name} that was published: .* Nothing was changed"):
        unpack(wrong, packed(tmp_path / "a.zip", place), tmp_path / "root")
    assert [path for path in (tmp_path / "root").rglob("*") if path.is_file()] == []


@EVERY
def test_missing_data_say_where_they_were_looked_for_and_what_to_type(tmp_path, name):
    spec, _ = FAKES[name]
    with pytest.raises(MissingData, match=f"{name} was not found. Looked for") as caught:
        spec.load(tmp_path)
    for place in spec.places(tmp_path):
        assert str(place) in str(caught.value)
    assert f"robustdml data {name} --from ARCHIVE --data-root {tmp_path}" in str(caught.value)


@EVERY
def test_a_wrong_archive_is_refused(tmp_path, name):
    spec, _ = FAKES[name]
    (tmp_path / "stuff").mkdir()
    (tmp_path / "stuff" / "readme").write_text("hello")
    with pytest.raises(DataError, match=f"holds nothing of {name}"):
        unpack(spec, packed(tmp_path / "a.zip", tmp_path / "stuff"), tmp_path / "root")
    with pytest.raises(DataError, match="There is no archive"):
        unpack(spec, tmp_path / "none.zip", tmp_path / "root")
    (tmp_path / "text").write_text("no archive")
    with pytest.raises(DataError, match="neither a zip nor a tar archive"):
        unpack(spec, tmp_path / "text", tmp_path / "root")


def test_an_archive_that_lacks_a_part_of_a_data_set_changes_nothing(tmp_path):
    spec, make = FAKES["cifar10"]
    place = make(tmp_path)
    (place / "data_batch_4").unlink()
    with pytest.raises(DataError, match=r"a.zip is not the cifar10 .*: it lacks data_batch_4\. Nothing was changed"):
        unpack(spec, packed(tmp_path / "a.zip", place), tmp_path / "root")
    assert [path for path in (tmp_path / "root").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("name", ["../images/x.jpg", "/images/x.jpg", "images/../../x.jpg", "..\\images\\x.jpg"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_entries_that_leave_the_archive_are_refused(tmp_path, name, kind):
    place = cub(tmp_path / "elsewhere")
    archive = tmp_path / f"a.{kind}"
    if kind == "zip":
        packed(archive, place)
        with zipfile.ZipFile(archive, "a") as pack:
            pack.writestr(name, "x")
    else:
        add_to_tar(archive, "images.txt")
        add_to_tar(archive, name)
    before = tree(tmp_path)
    with pytest.raises(DataError, match="leads out of it"):
        unpack(CUB, archive, tmp_path / "root")
    assert {k: v for k, v in tree(tmp_path).items() if k != "root"} == before


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(tmp_path, kind):
    add_to_tar(tmp_path / "a.tar", "CUB_200_2011/images/x.jpg", type=kind, linkname="/etc/passwd")
    with pytest.raises(DataError, match="is a link or a device"):
        unpack(CUB, tmp_path / "a.tar", tmp_path / "root")
    info = zipfile.ZipInfo("CUB_200_2011/images/x.jpg")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as pack:
        pack.writestr(info, "/etc/passwd")
    with pytest.raises(DataError, match="is a link or a device"):
        unpack(CUB, tmp_path / "a.zip", tmp_path / "root")
    assert list((tmp_path / "root").iterdir()) == []


def test_archives_that_grow_beyond_the_data_set_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Cub, "layout", replace(Cub.layout, largest=10_000))
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as pack:
        pack.writestr("images/001.A/x.jpg", bytes(20_000))
    with pytest.raises(DataError, match="unpacks to more than"):
        unpack(CUB, tmp_path / "a.zip", tmp_path / "root")


def test_one_file_twice_is_refused(tmp_path):
    add_to_tar(tmp_path / "a.tar", "x/images.txt", b"1")
    add_to_tar(tmp_path / "a.tar", "y/images.txt", b"2")
    with pytest.raises(DataError, match=r"it holds images\.txt twice"):
        unpack(CUB, tmp_path / "a.tar", tmp_path / "root")


def test_a_truncated_archive_changes_nothing(tmp_path):
    place = cub(tmp_path / "root")
    before = tree(place)
    archive = packed(tmp_path / "a.tar.gz", place)
    archive.write_bytes(archive.read_bytes()[:-200])
    with pytest.raises(DataError, match="cannot be unpacked"):
        unpack(CUB, archive, tmp_path / "root")
    assert tree(place) == before
    assert [p.name for p in (tmp_path / "root").iterdir()] == ["CUB_200_2011"]


def test_a_damaged_copy_is_replaced(tmp_path):
    archive = packed(tmp_path / "a.zip", cub(tmp_path / "elsewhere"))
    place = cub(tmp_path / "root")
    (place / "images/001.Bird_1/b_1_0.jpg").unlink()
    (place / "own.txt").write_text("kept")
    unpack(CUB, archive, tmp_path / "root")
    assert len(CUB.load(tmp_path / "root")) == 10
    assert (place / "own.txt").read_text() == "kept"


def test_what_is_swapped_in_comes_back_if_a_rename_fails(tmp_path, monkeypatch):
    archive = packed(tmp_path / "a.zip", cub(tmp_path / "elsewhere"))
    place = cub(tmp_path / "root", lists=False)
    before = tree(place)
    rename = os.rename
    done = []

    def failing(self, target):
        if target.parent == place and target.name == "images.txt" and not done:
            done.append(1)
            raise OSError("disk on fire")
        rename(self, target)
        return target

    monkeypatch.setattr("pathlib.Path.rename", failing)
    with pytest.raises(OSError, match="disk on fire"):
        unpack(CUB, archive, tmp_path / "root")
    assert tree(place) == before


def test_a_data_set_in_two_parts_is_complete_after_the_second(tmp_path):
    place = cars(tmp_path / "elsewhere")
    images = packed(tmp_path / "car_ims.tgz", place / "car_ims")
    unpack(CARS, images, tmp_path / "root")
    with pytest.raises(DataError, match=r"cars is incomplete: .*cars lacks cars_annos.mat"):
        CARS.load(tmp_path / "root")
    unpack(CARS, place / "cars_annos.mat", tmp_path / "root")
    assert len(CARS.load(tmp_path / "root")) == 10


def test_the_second_part_is_counted_against_the_first(tmp_path):
    place = cars(tmp_path / "elsewhere")
    unpack(CARS, packed(tmp_path / "car_ims.tgz", place / "car_ims"), tmp_path / "root")
    (tmp_path / "root/cars/car_ims/000003.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 10 listed images are missing.*car_ims/000003.jpg"):
        unpack(CARS, place / "cars_annos.mat", tmp_path / "root")
    assert [p.name for p in (tmp_path / "root/cars").iterdir()] == ["car_ims"]


def test_hidden_files_of_an_archive_are_left_in_it(tmp_path):
    place = cub(tmp_path / "elsewhere", lists=False)
    (place / "images/001.Bird_1/._b_1_0.jpg").write_bytes(b"metadata of another system")
    unpack(CUB, packed(tmp_path / "a.zip", place), tmp_path / "root")
    assert list((tmp_path / "root").rglob("._*")) == []
    assert len(CUB.load(tmp_path / "root")) == 10


def test_of_several_places_the_first_complete_one_is_taken(tmp_path, monkeypatch):
    cars(tmp_path, "cars196")
    (tmp_path / "cars/car_ims").mkdir(parents=True)
    assert len(CARS.load(tmp_path)) == 10
    sop(tmp_path, "Standford_Online_Products")
    assert len(SOP.load(tmp_path)) == 9


@pytest.fixture
def served(tmp_path, monkeypatch):
    """CIFAR-10's stand-in behind a file: address, with its own checksum."""
    archive = packed(tmp_path / "cifar-10-python.tar.gz", cifar10(tmp_path / "elsewhere"))
    md5 = hashlib.md5(archive.read_bytes()).hexdigest()
    remote = Remote("http://mirror/cifar-10-python.tar.gz", md5, 1 << 20)
    monkeypatch.setattr(type(CIFAR10), "layout", replace(type(CIFAR10).layout, remote=remote))
    monkeypatch.setattr("robustdml.data.layout.fetch", lambda url, part, progress, largest: part.write_bytes(
        archive.read_bytes()))  # fmt: skip
    return archive


def test_a_download_is_verified_and_unpacked(tmp_path, served):
    place = download(CIFAR10, tmp_path / "root")
    assert len(CIFAR10.load(tmp_path / "root")) == 14
    assert [p.name for p in place.parent.iterdir()] == [place.name]


def test_a_download_of_something_else_is_deleted(tmp_path, served):
    served.write_bytes(served.read_bytes() + b"x")
    with pytest.raises(DataError, match="is not the published file: its MD5 is"):
        download(CIFAR10, tmp_path / "root")
    assert list((tmp_path / "root").iterdir()) == []


def test_without_an_open_mirror_people_are_told_where_to_look(tmp_path):
    with pytest.raises(DataError, match=r"(?s)no mirror that needs no account .*cvgl.stanford.edu"):
        download(SOP, tmp_path)


def test_a_folder_linked_to_itself_is_refused(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/again").symlink_to(tmp_path / "images")
    with pytest.raises(DataError, match="is it a link to itself"):
        walk(tmp_path, lambda name: True)


def test_known_checksums_belong_to_open_mirrors():
    remotes = {name: cls.layout.remote for name, cls in DATASETS.items() if isinstance(cls(), Stored)}
    assert {name for name, remote in remotes.items() if remote} == {"cub", "cifar10", "cifar100"}
    assert all(len(r.md5) == 32 and r.url.startswith("https://") for r in remotes.values() if r)
    assert all(isinstance(cls.layout, Layout) for name, cls in DATASETS.items() if name in remotes)
