"""Downloads from a local server that breaks off, with and without ranges."""

import hashlib
import http.server
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest

from common.errors import RunError, UsageError
from symphony import data, download
from symphony.data.sources import qm9

CONTENTS = np.random.default_rng(0).bytes(300_000)
MD5 = hashlib.md5(CONTENTS).hexdigest()
FIXTURES = Path(__file__).parent / "fixtures"


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.files`; each answer ends after `server.breaks_after` bytes."""

    def do_GET(self):
        server = self.server
        server.ranges.append(self.headers.get("Range"))
        contents = server.files.get(self.path)
        if server.refusals:
            self.send_error(server.refusals.pop(0))
            return
        if contents is None:
            self.send_error(404)
            return
        begin = 0
        if server.knows_ranges and self.headers.get("Range"):
            begin = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
        if begin >= len(contents) > 0:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(contents)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if begin else 200)
        if begin:
            span = f"bytes {begin}-{len(contents) - 1}/{len(contents)}"
            self.send_header("Content-Range", span)
        if server.tells_length:
            self.send_header("Content-Length", str(len(contents) - begin))
        self.end_headers()
        self.wfile.write(contents[begin:][: server.breaks_after])

    def log_message(self, *arguments):
        """Keeps the output of the tests clean."""


@pytest.fixture
def server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files = {"/file": CONTENTS}
    server.ranges, server.refusals = [], []
    server.knows_ranges, server.tells_length, server.breaks_after = True, True, None
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.01}
    )
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def fetch(server, path, **options):
    options = {"md5": MD5, "pause": 0.0, "timeout": 5.0} | options
    return download.fetch(f"{server.url}/file", path, **options)


def test_file_arrives_whole_with_its_checksum_noted(server, tmp_path):
    path = fetch(server, tmp_path / "new" / "file.bin")
    assert path.read_bytes() == CONTENTS
    noted = (tmp_path / "new" / "file.bin.sha256").read_text()
    assert noted == f"{hashlib.sha256(CONTENTS).hexdigest()}  file.bin\n"
    assert len(list(path.parent.iterdir())) == 2


def test_download_that_breaks_off_goes_on_where_it_was(server, tmp_path):
    server.breaks_after = 100_000
    path = fetch(server, tmp_path / "file.bin")
    assert path.read_bytes() == CONTENTS
    assert server.ranges == [None, "bytes=100000-", "bytes=200000-"]


def test_server_without_ranges_is_asked_again_for_the_whole(server, tmp_path):
    server.knows_ranges, server.breaks_after = False, 100_000
    part = tmp_path / "file.bin.part"
    with pytest.raises(
        RunError, match=r"100000 of 300000 bytes.*run the command again"
    ):
        fetch(server, tmp_path / "file.bin", attempts=2)
    assert part.read_bytes() == CONTENTS[:100_000]
    assert not (tmp_path / "file.bin").exists()
    server.breaks_after = None
    assert fetch(server, tmp_path / "file.bin").read_bytes() == CONTENTS
    assert not part.exists()


def test_a_later_run_goes_on_from_what_an_earlier_one_left(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENTS[:250_000])
    assert fetch(server, tmp_path / "file.bin").read_bytes() == CONTENTS
    assert server.ranges == ["bytes=250000-"]


def test_complete_part_is_accepted_and_a_longer_one_is_not(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENTS)
    assert fetch(server, tmp_path / "file.bin").read_bytes() == CONTENTS
    (tmp_path / "other.bin.part").write_bytes(CONTENTS + b"more")
    assert fetch(server, tmp_path / "other.bin").read_bytes() == CONTENTS


def test_wrong_checksum_leaves_nothing_behind(server, tmp_path):
    for wrong in ({"md5": "0" * 32}, {"sha256": "0" * 64}, {"size": 7}):
        with pytest.raises(RunError, match=r"expected .*, found"):
            fetch(server, tmp_path / "file.bin", **wrong)
        assert list(tmp_path.iterdir()) == []


def test_break_without_announced_length_is_seen_by_size_or_checksum(server, tmp_path):
    server.tells_length, server.breaks_after = False, 100_000
    with pytest.raises(RunError, match="expected md5"):
        fetch(server, tmp_path / "file.bin")
    with pytest.raises(RunError, match="expected 300000 bytes, found 100000"):
        fetch(server, tmp_path / "file.bin", size=300_000)


def test_present_file_is_not_fetched_again_unless_it_is_wrong(server, tmp_path):
    path = fetch(server, tmp_path / "file.bin")
    fetch(server, path)
    assert len(server.ranges) == 1
    path.write_bytes(b"something else")
    assert fetch(server, path).read_bytes() == CONTENTS


def test_busy_server_is_asked_again_and_a_refusal_is_final(server, tmp_path):
    server.refusals = [503, 429]
    assert fetch(server, tmp_path / "file.bin").read_bytes() == CONTENTS
    server.files = {}
    with pytest.raises(UsageError, match="404"):
        fetch(server, tmp_path / "other.bin")


def test_no_server_is_a_failed_run_in_one_line(tmp_path):
    with pytest.raises(RunError, match="could not be downloaded") as caught:
        download.fetch("http://127.0.0.1:9/x", tmp_path / "x", attempts=1, pause=0.0)
    assert "\n" not in str(caught.value)


def test_qm9_is_downloaded_by_its_name_and_read(server, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    archive = tmp_path / "made.tar.bz2"
    with tarfile.open(archive, "w:bz2") as members:
        for member in sorted(FIXTURES.glob("dsgdb9nsd_*.xyz")):
            members.add(member, arcname=member.name)
    excluded = (data.sources.qm9.PACKAGED / "qm9_uncharacterized.txt").read_bytes()
    server.files = {"/tar": archive.read_bytes(), "/excluded": excluded}
    server.breaks_after = 700
    for name, at, contents in (
        ("TAR", "tar", archive.read_bytes()),
        ("EXCLUDED", "excluded", excluded),
    ):
        source = getattr(qm9, name)._replace(
            url=f"{server.url}/{at}",
            md5=hashlib.md5(contents).hexdigest(),
            size=len(contents),
        )
        monkeypatch.setattr(qm9, name, source)
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
    molecules, _ = data.read_molecules("qm9", (1, 6, 7, 8, 9), 29)
    assert len(molecules.num_atoms) == 6
    before = len(server.ranges)
    data.read_molecules("qm9", (1, 6, 7, 8, 9), 29)
    assert len(server.ranges) == before


def test_published_sources_are_figshares_and_moleculenets():
    assert qm9.TAR.url.endswith("figshare.com/files/3195389")
    assert qm9.EXCLUDED.url.endswith("figshare.com/files/3195404")
    assert qm9.ZIP.url.endswith("molnet_publish/qm9.zip")


def test_a_full_disk_is_told_at_once_with_what_is_kept(server, tmp_path, monkeypatch):
    def fail(url, part, timeout):
        server.ranges.append(None)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(download, "_continue", fail)
    match = r"file\.bin\.part: cannot be written \(No space left.*what arrived is kept"
    with pytest.raises(RunError, match=match):
        fetch(server, tmp_path / "file.bin")
    assert server.ranges == [None]


@pytest.mark.parametrize("note", [b"", b"\xff\xfe", b"\n"])
def test_a_damaged_note_of_a_checksum_is_no_failure(server, tmp_path, note):
    fetch(server, tmp_path / "file.bin")
    (tmp_path / "file.bin.sha256").write_bytes(note)
    assert fetch(server, tmp_path / "file.bin").read_bytes() == CONTENTS
