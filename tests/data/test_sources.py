import gzip
import http.server
import io
import stat
import tarfile
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from robustdml.data.errors import DataError
from robustdml.data.idx import Fashion
from robustdml.data.sources import PUBLISHED, checksum, download, places, roots, unpack

FILE = "train-images-idx3-ubyte"


class Mirror(http.server.BaseHTTPRequestHandler):
    """Serves `server.files` with ranges, and keeps the ranges that were asked for."""

    def do_GET(self):
        content = self.server.files.get(self.path.removeprefix("/"))
        asked = self.headers.get("Range")
        self.server.asked.append((self.path.removeprefix("/"), asked))
        if content is None:
            self.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.server.ranges else 0
        if start and start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : self.server.stop_at])

    def log_message(self, *_):
        """Keeps the test output clean."""


@pytest.fixture
def mirror(tiny, contents, monkeypatch):
    """A server of the stand-in's files, announced as its mirror."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mirror) as server:
        server.files = {f"{file}.gz": gzip.compress(content, mtime=0) for file, content in contents.items()}
        server.asked, server.ranges, server.stop_at = [], True, None
        url = f"http://127.0.0.1:{server.server_port}/"
        monkeypatch.setitem(PUBLISHED, "fashion", replace(PUBLISHED["fashion"], mirror=url))
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(timeout=5)


def leftovers(place):
    return [path.name for path in place.iterdir() if path.suffix != ".gz"]


def test_places_are_searched_in_the_documented_order(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/h")
    monkeypatch.setenv("ROBUSTDML_DATA", "~/data")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    expected = [tmp_path, Path("/h/data"), Path("/h/.cache/robustdml"), Path("/h/.torch")]
    assert roots(tmp_path) == expected
    assert places("fashion", tmp_path) == [
        *(root / "FashionMNIST/raw" for root in expected),
        Path("/usr/share/datasets/fashion-mnist"),
    ]
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    monkeypatch.delenv("ROBUSTDML_DATA")
    assert roots() == [Path("/c/robustdml"), Path("/h/.torch")]
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert roots()[0] == Path("/h/.cache/robustdml")


def test_the_environment_variable_leads_to_the_files(tiny, installed, monkeypatch):
    monkeypatch.setenv("ROBUSTDML_DATA", str(tiny))
    assert len(Fashion().load()) == 40


def test_a_packaged_copy_is_found(tiny, installed, monkeypatch):
    monkeypatch.setitem(PUBLISHED, "fashion", replace(PUBLISHED["fashion"], packaged=(installed,)))
    assert len(Fashion().load()) == 40


def test_a_download_can_be_loaded(tiny, mirror):
    seen = []
    place = download("fashion", tiny, lambda file, done, total: seen.append((file, done, total)))
    assert place == tiny / "FashionMNIST/raw"
    assert leftovers(place) == []
    assert len(Fashion().load(tiny)) == 40
    size = len(mirror.files[f"{FILE}.gz"])
    assert (f"{FILE}.gz", size, size) in seen


def test_without_a_root_a_download_goes_where_the_search_begins(tiny, mirror):
    assert download("fashion") == places("fashion")[0]
    assert len(Fashion().load()) == 40


def test_what_is_there_is_not_fetched_again(tiny, installed, mirror):
    (installed / f"{FILE}.gz").unlink()
    download("fashion", tiny)
    assert mirror.asked == [(f"{FILE}.gz", None)]


def test_a_damaged_file_is_replaced(tiny, installed, mirror):
    (installed / FILE).write_bytes(b"damaged, and it would be found before the packed file")
    download("fashion", tiny)
    assert len(Fashion().load(tiny)) == 40


def test_a_connection_that_breaks_is_continued(tiny, mirror):
    mirror.stop_at = 1000
    with pytest.raises(DataError, match=r"ended after 1000 of \d+ bytes. Try again: the download continues there"):
        download("fashion", tiny)
    assert leftovers(tiny / "FashionMNIST/raw") == [f"{FILE}.gz.part"]
    mirror.stop_at = None
    download("fashion", tiny)
    assert mirror.asked[:2] == [(f"{FILE}.gz", None), (f"{FILE}.gz", "bytes=1000-")]
    assert len(Fashion().load(tiny)) == 40


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("length", [1000, None])
def test_a_partial_file_is_continued_whatever_the_server_can_do(tiny, mirror, ranges, length):
    place = tiny / "FashionMNIST/raw"
    place.mkdir(parents=True)
    (place / f"{FILE}.gz.part").write_bytes(mirror.files[f"{FILE}.gz"][:length])
    mirror.ranges = ranges
    download("fashion", tiny)
    assert leftovers(place) == []
    assert len(Fashion().load(tiny)) == 40


def test_other_content_is_deleted_and_reported(tiny, mirror, contents):
    mirror.files[f"{FILE}.gz"] = gzip.compress(contents[FILE][:-1] + b"x")
    with pytest.raises(DataError, match="is not the published file: the MD5 of its content is") as caught:
        download("fashion", tiny)
    assert PUBLISHED["fashion"].contents[FILE] in str(caught.value)
    assert list((tiny / "FashionMNIST/raw").iterdir()) == []


def test_a_page_in_place_of_the_file_is_refused(tiny, mirror):
    mirror.files[f"{FILE}.gz"] = b"<html>moved</html>"
    with pytest.raises(DataError, match="Not a gzipped file"):
        download("fashion", tiny)
    assert list((tiny / "FashionMNIST/raw").iterdir()) == []


def test_a_missing_file_on_the_mirror_is_reported(tiny, mirror):
    mirror.files.clear()
    with pytest.raises(DataError, match="answered 404 Not Found") as caught:
        download("fashion", tiny)
    assert f"/{FILE}.gz" in str(caught.value)
    assert "robustdml data fashion --from ARCHIVE" in str(caught.value)


def test_an_unreachable_mirror_is_reported(tiny, mirror, monkeypatch):
    monkeypatch.setitem(PUBLISHED, "fashion", replace(PUBLISHED["fashion"], mirror="http://127.0.0.1:1/"))
    with pytest.raises(DataError, match=r"http://127.0.0.1:1/.* stopped after 0 bytes"):
        download("fashion", tiny)


def test_names_without_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="digits has no archive"):
        download("digits", tmp_path)


def zipped(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def tarred(path, members, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_an_archive_is_unpacked_wherever_the_files_lie_in_it(tiny, tmp_path, contents, pack):
    packed = [(f"data/{file}.gz", gzip.compress(content)) for file, content in list(contents.items())[:2]]
    plain = [(f"raw/deep/{file}", content) for file, content in list(contents.items())[2:]]
    place = unpack("fashion", pack(tmp_path / "a", [("README", b"hello"), *packed, *plain]), tiny)
    assert sorted(path.name for path in place.iterdir()) == sorted(
        [f"{file}.gz" for file in list(contents)[:2]] + list(contents)[2:]
    )
    assert len(Fashion().load(tiny)) == 40


def test_of_two_files_of_one_name_the_published_one_is_taken(tiny, tmp_path, contents):
    others = [(f"MNIST/{file}", content[:-1] + b"\0") for file, content in contents.items()]
    unpack("fashion", zipped(tmp_path / "a.zip", [*others, *contents.items()]), tiny)
    assert len(Fashion().load(tiny)) == 40


def test_a_damaged_copy_does_not_hide_the_unpacked_one(tiny, installed, tmp_path, contents):
    (installed / FILE).write_bytes(b"damaged")
    unpack("fashion", zipped(tmp_path / "a.zip", [(f"{f}.gz", gzip.compress(c)) for f, c in contents.items()]), tiny)
    assert len(Fashion().load(tiny)) == 40


def test_an_incomplete_archive_installs_nothing(tiny, tmp_path, contents):
    wrong = {**contents, FILE: b"something else"}
    del wrong["t10k-labels-idx1-ubyte"]
    with pytest.raises(DataError) as caught:
        unpack("fashion", zipped(tmp_path / "a.zip", wrong.items()), tiny)
    assert f"lacks files of fashion: {FILE} (its content is not the published one), t10k-labels-idx1-ubyte" in str(
        caught.value
    )
    assert list((tiny / "FashionMNIST/raw").iterdir()) == []


@pytest.mark.parametrize("pack", [zipped, tarred])
@pytest.mark.parametrize("name", [f"../{FILE}", f"/tmp/{FILE}", f"a/../../{FILE}", f"..\\{FILE}"])
def test_paths_that_leave_the_archive_are_refused(tiny, tmp_path, contents, pack, name):
    archive = pack(tmp_path / "a", [*contents.items(), (name, b"x")])
    with pytest.raises(DataError, match="leads out of it"):
        unpack("fashion", archive, tiny)
    assert list((tiny / "FashionMNIST/raw").iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"a", "root"}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_a_tar_are_refused(tiny, tmp_path, kind):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        info = tarfile.TarInfo(FILE)
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(DataError, match="is a link or a device"):
        unpack("fashion", tmp_path / "a.tar", tiny)


def test_links_in_a_zip_are_refused(tiny, tmp_path):
    info = zipfile.ZipInfo(FILE)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(DataError, match="is a link or a device"):
        unpack("fashion", zipped(tmp_path / "a.zip", [(info, "/etc/passwd")]), tiny)


def test_absurd_sizes_are_refused(tiny, tmp_path, contents, monkeypatch):
    monkeypatch.setattr("robustdml.data.sources.LARGEST_FILE", 30_000)
    bomb = zipped(tmp_path / "a.zip", [(FILE, bytes(40_000))])
    with pytest.raises(DataError, match="holds a data file of more than"):
        unpack("fashion", bomb, tiny)
    packed = zipped(tmp_path / "b.zip", [(f"{FILE}.gz", gzip.compress(bytes(40_000)))])
    with pytest.raises(DataError, match="its content is not the published one"):
        unpack("fashion", packed, tiny)
    monkeypatch.setattr("robustdml.data.sources.LARGEST_ARCHIVE", 1000)
    for pack in (zipped, tarred):
        with pytest.raises(DataError, match="it unpacks to more than"):
            unpack("fashion", pack(tmp_path / "c", [("other", bytes(2000))]), tiny)


def test_what_is_no_archive_is_refused(tiny, tmp_path, contents):
    with pytest.raises(DataError, match="There is no archive"):
        unpack("fashion", tmp_path / "none.zip", tiny)
    (tmp_path / "text").write_text("no archive")
    with pytest.raises(DataError, match="neither a zip nor a tar archive"):
        unpack("fashion", tmp_path / "text", tiny)
    damaged = tarred(tmp_path / "a.tar.gz", contents.items())
    damaged.write_bytes(damaged.read_bytes()[:-3000])
    with pytest.raises(DataError, match="cannot be unpacked"):
        unpack("fashion", damaged, tiny)
    assert list((tiny / "FashionMNIST/raw").iterdir()) == []


def test_a_checksum_is_of_the_unpacked_content(tmp_path, contents):
    (tmp_path / "a").write_bytes(contents[FILE])
    (tmp_path / "a.gz").write_bytes(gzip.compress(contents[FILE], 1))
    (tmp_path / "a.gz.part").write_bytes(gzip.compress(contents[FILE], 9))
    assert len({checksum(tmp_path / name) for name in ("a", "a.gz", "a.gz.part")}) == 1
    assert checksum(tmp_path / "missing").startswith("unknown (")


@pytest.mark.real
@pytest.mark.parametrize("name", ["mnist", "fashion"])
def test_the_real_files_have_the_published_checksums(real_data, name):
    place = real_data / PUBLISHED[name].folder
    for file, md5 in PUBLISHED[name].contents.items():
        assert checksum(place / f"{file}.gz") == md5
