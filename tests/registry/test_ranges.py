"""Transfers that go on where they stopped, in parts, several at a time, at the pace that a registry wants."""

from __future__ import annotations

import io
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from sregistry.errors import TransferError
from sregistry.oci.documents import Descriptor, Digest, MediaType
from sregistry.oci.reference import Reference
from sregistry.registry import ranges
from sregistry.registry.client import RegistryClient
from sregistry.registry.fetch import fetch
from sregistry.registry.rate_limit import Pace, limit_of, reset_of
from sregistry.results.resolved import Layer
from sregistry.store.store import Store
from tests.support.scripted import HASTY, Asked, Reply, Scripted, client, ranged, settings

DATA = random.Random(1).randbytes(3_000_000)
DIGEST = Digest.of(DATA)
PATH = f"/v2/demo/tiny/blobs/{DIGEST}"
LAYER = Layer(blob=Descriptor(media_type=MediaType.OCI_LAYER, digest=DIGEST, size=len(DATA)), diff_id=DIGEST)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def get(host: str, store: Store, connections: int = 1) -> str:
    log = io.StringIO()
    with client(host) as it:
        fetch(it, Reference.parse("demo/tiny:1", registry=host, collection=""), LAYER, store, connections=connections, log=log)
    assert store.read(DIGEST) == DATA
    assert not list((store.root / "ingest").iterdir())
    return log.getvalue()


def partial(store: Store, data: bytes) -> None:
    path = store.root / "ingest" / f"sha256-{DIGEST.hex}.partial"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)


def slow(rate: int) -> Scripted:
    """Return a server of DATA, in parts where asked, each connection at *rate* bytes a second."""
    return Scripted({PATH: lambda asked: replace(ranged(DATA)(asked), rate=rate)})


def test_an_interrupted_layer_goes_on_where_it_stopped(store: Store) -> None:
    partial(store, DATA[:1_000_000])
    with Scripted({PATH: ranged(DATA)}) as server:
        log = get(server.host, store)
        assert [asked.headers["Range"] for asked in server.asked] == ["bytes=1000000-"]
    assert "going on after 1.0 MB" in log
    assert "2.0 MB in" in log


def test_a_rest_that_is_whole_already_is_not_asked_for(store: Store) -> None:
    partial(store, DATA)
    with Scripted({PATH: Reply(500)}) as server:
        get(server.host, store)
        assert server.asked == []


def test_a_signed_address_is_asked_for_anew(store: Store) -> None:
    """Each try begins at the registry: the address of the last one may have expired."""
    number = iter(range(1, 100))

    def redirect(_: object) -> Reply:
        return Reply(307, b"", [("Location", f"http://{storage.host}/data?signature={next(number)}")])

    with Scripted() as storage, Scripted({PATH: redirect}) as server:
        storage.routes["/data"] = [Reply(200, DATA[:1_500_000], length=len(DATA)), ranged(DATA)]
        get(server.host, store)
        assert [asked.path for asked in storage.asked] == ["/data?signature=1", "/data?signature=2"]
        assert storage.asked[1].headers["Range"] == "bytes=1500000-"


def test_progress_gives_all_tries_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sregistry.registry.fetch._PROGRESS", 100_000)

    def short(asked: Asked) -> Reply:
        whole = ranged(DATA)(asked)
        return Reply(whole.status, whole.body[:150_000], whole.headers, length=len(whole.body))

    with Scripted({PATH: short}) as server:
        log = get(server.host, store)
    assert log.count("again: ") == 19  # HASTY has two


def test_killed_in_the_middle_the_next_process_goes_on(store: Store) -> None:
    code = """
import sys
from pathlib import Path
from sregistry.oci.documents import Descriptor, Digest
from sregistry.oci.reference import Reference
from sregistry.registry.fetch import fetch
from sregistry.results.resolved import Layer
from sregistry.store.store import Store
from tests.support.scripted import client
host, root, digest, size, media_type = sys.argv[1:]
layer = Layer(blob=Descriptor(media_type=media_type, digest=Digest(digest), size=int(size)), diff_id=Digest(digest))
with client(host) as it:
    fetch(it, Reference.parse("demo/tiny:1", registry=host, collection=""), layer, Store(Path(root)))
"""
    with slow(1_000_000) as server:
        words = [server.host, str(store.root), str(DIGEST), str(len(DATA)), MediaType.OCI_LAYER]
        job = subprocess.Popen([sys.executable, "-c", code, *words], cwd=Path(__file__).parents[2])
        path = store.root / "ingest" / f"sha256-{DIGEST.hex}.partial"
        while not path.exists() or path.stat().st_size < 200_000:
            time.sleep(0.01)
        job.send_signal(signal.SIGKILL)
        job.wait()
    assert not store.has(DIGEST)
    kept = path.stat().st_size
    assert DATA.startswith(path.read_bytes())
    with Scripted({PATH: ranged(DATA)}) as server:
        get(server.host, store)
        assert [asked.headers["Range"] for asked in server.asked] == [f"bytes={kept}-"]


# --- several connections -------------------------------------------------------------------------


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "SEGMENT", 200_000)


@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize("connections", [1, 2, 5, 40])
@pytest.mark.parametrize("kept", [0, 1, 2_500_000])
def test_ranges_are_put_in_order(store: Store, connections: int, kept: int) -> None:
    if kept:
        partial(store, DATA[:kept])
    with Scripted({PATH: ranged(DATA)}) as server:
        get(server.host, store, connections)
        asked = sorted(_asked(request.headers["Range"]) for request in server.asked)
    assert (asked[0][0], asked[-1][1]) == (kept, len(DATA))
    assert all(before[1] == after[0] for before, after in pairwise(asked))
    assert (len(asked) > 1) == (connections > 1 and kept < 2_600_000)


def _asked(header: str | None) -> tuple[int, int]:
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", header or "bytes=0-")
    assert found
    return int(found[1]), int(found[2]) + 1 if found[2] else len(DATA)


@pytest.mark.usefixtures("small_segments")
def test_a_server_without_ranges_is_read_by_one_connection(store: Store) -> None:
    partial(store, DATA[:7])
    with Scripted({PATH: Reply(200, DATA)}) as server:
        get(server.host, store, 4)
        assert len(server.asked) == 1


@pytest.mark.usefixtures("small_segments")
def test_ranges_that_break_off_are_gone_on_with(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sregistry.registry.fetch._PROGRESS", 100_000)
    lock, seen = threading.Lock(), set[str]()

    def flaky(asked: Asked) -> Reply:
        reply = ranged(DATA)(asked)
        key = dict(reply.headers).get("Content-Range", "")
        with lock:
            first = key not in seen
            seen.add(key)
        return Reply(reply.status, reply.body[:100_000], reply.headers, length=len(reply.body)) if first else reply

    with Scripted({PATH: flaky}) as server:
        get(server.host, store, 3)
        assert len(server.asked) > 16


@pytest.mark.usefixtures("small_segments")
def test_a_range_that_always_breaks_off_is_given_up_and_what_came_is_kept(store: Store) -> None:
    def broken(asked: Asked) -> Reply:
        reply = ranged(DATA)(asked)
        bad = "bytes 1000000-" in dict(reply.headers).get("Content-Range", "")
        return Reply(reply.status, b"", reply.headers, length=len(reply.body)) if bad else reply

    with Scripted({PATH: broken}) as server, pytest.raises(TransferError, match="gave up after 3 tries"):
        get(server.host, store, 3)
    assert (store.root / "ingest" / f"sha256-{DIGEST.hex}.partial").read_bytes() == DATA[:1_000_000]


@pytest.mark.usefixtures("small_segments")
def test_connections_side_by_side_share_the_work(store: Store) -> None:
    """A server that limits a connection's speed gives several of them more: five ask while one would wait."""
    most = inside = 0
    lock = threading.Lock()

    def watched(asked: Asked) -> Reply:
        nonlocal most, inside
        with lock:
            inside += 1
            most = max(most, inside)
        time.sleep(0.05)
        with lock:
            inside -= 1
        return ranged(DATA)(asked)

    with Scripted({PATH: watched}) as server:
        get(server.host, store, 5)
    assert most == 5


# --- pace ----------------------------------------------------------------------------------------


class Clock:
    """Time that passes when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_a_bucket_is_shared_by_all_who_use_a_store(store: Store) -> None:
    clock = Clock()
    store.root.mkdir()
    paces = [Pace(store, "h:5000", 4, clock=clock, sleep=clock.sleep) for _ in range(3)]
    start = clock.now
    for number in range(24):
        paces[number % 3].wait()
    assert clock.now - start == pytest.approx(20 / 4)  # four at once, then four a second


@pytest.mark.parametrize("text", ["", "nonsense", "inf", "nan", "9e99", "-5"])
def test_a_bucket_that_holds_nonsense_is_begun_anew(store: Store, text: str) -> None:
    clock = Clock()
    (store.root / "pace").mkdir(parents=True)
    (store.root / "pace" / "h").write_text(text)
    Pace(store, "h", 1, clock=clock, sleep=clock.sleep).wait()
    assert clock.now == 1_000_000


@pytest.mark.parametrize("planted", ["link", "hard-link", "pipe", "folder", "folder-link"])
def test_a_bucket_that_somebody_planted_is_left_alone(store: Store, tmp_path: Path, planted: str) -> None:
    """Whoever may write to a store may not have others write elsewhere, nor wait."""
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "h").write_text("mine")
    store.root.mkdir(exist_ok=True)
    place = store.root / "pace"
    if planted == "folder-link":
        place.symlink_to(mine)
    else:
        place.mkdir()
        if planted == "link":
            (place / "h").symlink_to(mine / "h")
        elif planted == "hard-link":
            (place / "h").hardlink_to(mine / "h")
        elif planted == "pipe":
            os.mkfifo(place / "h")
        else:
            (place / "h").mkdir()
    clock = Clock()
    pace = Pace(store, "h", 2, clock=clock, sleep=clock.sleep)
    for _ in range(6):
        pace.wait()
    assert clock.now - 1_000_000 == pytest.approx(2)
    assert (mine / "h").read_text() == "mine"


def test_a_store_that_can_t_be_written_has_a_bucket_a_process(tmp_path: Path) -> None:
    clock = Clock()
    (tmp_path / "file").write_text("")
    pace = Pace(Store(tmp_path / "file"), "h", 2, clock=clock, sleep=clock.sleep)
    for _ in range(6):
        pace.wait()
    assert clock.now - 1_000_000 == pytest.approx(2)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"ratelimit-remaining": "0", "ratelimit-reset": "7"}, 7),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1000000009"}, 0),
        ({"ratelimit-remaining": "0;w=21600"}, 0),
        ({"ratelimit-remaining": "5", "ratelimit-reset": "7"}, 0),
        ({"ratelimit-remaining": "0", "ratelimit-reset": "99999"}, 60),
        ({"ratelimit-remaining": "x", "ratelimit-reset": "y"}, 0),
        ({}, 0),
    ],
)
def test_a_registry_that_has_no_request_left_is_left_alone(store: Store, headers: dict[str, str], seconds: float) -> None:
    clock = Clock()
    pace = Pace(store, "h", None, clock=clock, sleep=clock.sleep)
    pace.note_limits(headers)
    if "x-ratelimit-reset" in headers:
        assert reset_of(headers, lambda: 1_000_000_000) == 9
        return
    assert pace.scarce == (seconds > 0)
    pace.wait()
    assert clock.now - 1_000_000 == seconds
    assert not pace.scarce and Pace(store, "h", 1, clock=clock, sleep=clock.sleep).scarce


@pytest.mark.parametrize(
    ("value", "text"), [("100;w=21600", ": 100 in 6 h"), ("20;w=90", ": 20 in 2 min"), ("100", ""), ("", ""), ("x;w=y", "")]
)
def test_a_limit_in_words(value: str, text: str) -> None:
    assert limit_of({"ratelimit-limit": value}) == text


def test_a_limited_client_waits(store: Store) -> None:
    clock = Clock()
    store.root.mkdir()
    with Scripted({PATH: ranged(DATA)}) as server:
        pace = Pace(store, server.host, 1, clock=clock, sleep=clock.sleep)
        with RegistryClient(settings(server.host), patience=HASTY, pace=pace) as it:
            for _ in range(3):
                b"".join(it.get_blob(Reference.parse("demo/tiny:1", registry=server.host, collection=""), LAYER.blob))
    assert clock.now - 1_000_000 == pytest.approx(2)
