"""Files in folders and archives."""

import io
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest

from robustdml.data.errors import DataError
from robustdml.data.stores import Directory, Several, Store, zipped

FILES = {"a/one.bin": bytes(range(256)) * 50, "two.bin": b"short", "three.bin": b""}


@pytest.fixture(params=[zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
def archive(tmp_path, request):
    path = tmp_path / "files.zip"
    with zipfile.ZipFile(path, "w", request.param) as pack:
        pack.writestr("a/", "")
        for name, content in FILES.items():
            pack.writestr(name, content)
    return path


@pytest.fixture
def folder(tmp_path):
    for name, content in FILES.items():
        (tmp_path / "files" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "files" / name).write_bytes(content)
    return tmp_path / "files"


def content(store, name):
    with store.open(name) as stream:
        return stream.read()


def test_every_store_has_the_same_files(archive, folder):
    for store in (zipped(archive), Directory(folder)):
        assert isinstance(store, Store)
        assert {name: content(store, name) for name in FILES} == FILES
        assert {name: store.size(name) for name in FILES} == {name: len(content) for name, content in FILES.items()}
        assert store.size("none") is None
        assert store.size("a") is None
        assert store.where("two.bin").endswith(("files.zip/two.bin", "files/two.bin"))


def test_several_stores_are_told_apart_by_the_beginning_of_a_name(archive, folder):
    both = Several({"packed": zipped(archive), "plain": Directory(folder)})
    assert isinstance(both, Store)
    assert content(both, "packed:two.bin") == content(both, "plain:two.bin") == b"short"
    assert both.size("plain:none") is None
    assert both.where("packed:two.bin") == f"{archive}/two.bin"


def test_an_archive_is_read_from_many_threads(archive):
    store = zipped(archive)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda name: content(store, name), [*FILES] * 50))
    assert found == [*FILES.values()] * 50


def test_a_damaged_archive_is_named_where_it_is_damaged(archive):
    data = bytearray(archive.read_bytes())
    store = zipped(archive)
    packed, header = store.members["a/one.bin"], store.members["two.bin"]
    data[packed.offset + 60 : packed.offset + 70] = b"\xff" * 10
    data[header.offset : header.offset + 4] = b"none"
    archive.write_bytes(data)
    for name in ("a/one.bin", "two.bin"):
        with pytest.raises(DataError, match=rf"files.zip/{name}: the archive is damaged there"):
            zipped(archive).open(name)
    assert content(store, "three.bin") == b""


def test_what_is_no_zip_or_strangely_packed_is_refused(tmp_path, monkeypatch):
    (tmp_path / "x.zip").write_bytes(b"no zip")
    with pytest.raises(DataError, match="cannot be read as a zip archive"):
        zipped(tmp_path / "x.zip")
    with zipfile.ZipFile(tmp_path / "y.zip", "w", zipfile.ZIP_BZIP2) as pack:
        pack.writestr("a", b"a" * 100)
    with pytest.raises(DataError, match="'a' is encrypted, too large or packed in an unknown way"):
        zipped(tmp_path / "y.zip")
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as pack:
        pack.writestr("a", b"a" * 100)
    (tmp_path / "z.zip").write_bytes(stream.getvalue())
    monkeypatch.setattr("robustdml.data.stores._LARGEST_MEMBER", 50)
    with pytest.raises(DataError, match="too large"):
        zipped(tmp_path / "z.zip")
