"""How far a run is: what is looked at, and what is shown of it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from sregistry.oci.documents import Digest
from sregistry.pipeline.progress.displays import Lines, Silent, display, summary
from sregistry.pipeline.progress.tracker import Rate, Step, Tracker, View
from sregistry.results.paths import Results
from sregistry.store.store import Store
from sregistry.system import heartbeat
from sregistry.system.heartbeat import Kind, Message

A, B = Digest.of(b"a" * 1000), Digest.of(b"b" * 3000)
VARIANT = "gzip-default-131072-3"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Work:
    """Folders of a run of one image of two layers."""

    def __init__(self, root: Path) -> None:
        self.results, self.store, self.pulse = root / "results", Store(root / "store"), root / "pulse"
        self.pulse.mkdir()
        self.clock = Clock()

    def resolve(self, sizes: tuple[int | None, int | None] = (1000, 3000), kind: str = "layers", key: str = "image") -> None:
        layers = [{"digest": str(digest), "size": size} for digest, size in zip((A, B), sizes, strict=True)]
        self.write(f"{key}/manifest.json", {"kind": kind, "layers": layers})

    def write(self, name: str, value: object) -> None:
        path = self.results / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))

    def partial(self, digest: Digest, size: int) -> None:
        folder = self.store.folder(self.store.root / "ingest")
        with (folder / f"{digest.algorithm}-{digest.hex}.partial").open("wb") as file:
            file.truncate(size)

    def tracker(self) -> Tracker:
        return Tracker(Results(self.results.parent), ["image"], VARIANT, self.store, self.pulse, self.clock)


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path)


def test_a_run_from_its_start(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = work.tracker()
    assert tracker.look().layers == ()
    work.resolve()
    view = tracker.look()
    assert ([layer.step for layer in view.layers], view.total, view.fetched) == ([Step.WAITING] * 2, 4000, 0)
    work.partial(A, 400)
    work.store.add(b"b" * 3000)
    work.clock.now = 2
    view = tracker.look()
    assert [(layer.step, layer.fetched) for layer in view.layers] == [(Step.FETCHING, 400), (Step.FETCHED, 3000)]
    assert (view.fetching, view.layers[0].speed) == (1700, 200)
    work.write(f"layer/{A}.json", {"digest": "a", "size": 1, "diff_id": None, "store": "s", "holds": [{"path": "/elsewhere/a", "size": 1}]})
    (work.pulse / f"explode-sha256-{A.hex}").write_text("                 250")
    work.clock.now = 4
    view = tracker.look()
    assert [(layer.step, layer.fetched, layer.exploded) for layer in view.layers] == [(Step.EXPLODING, 1000, 250), (Step.FETCHED, 3000, 0)]
    assert list(map(str, view.messages)) == ["Exploding /elsewhere/a"]
    work.write(f"explode/{A}.{VARIANT}.json", {})
    monkeypatch.setenv(heartbeat.VARIABLE, str(work.pulse))
    told = ("explode sha256:aa: 1", Kind.RESULT), ("[container][new] x", Kind.RECORDED), ("Success! y", Kind.RECORDED), ("z", Kind.WARNING)
    for text, kind in told:
        heartbeat.tell_user(text, kind)
    with (work.pulse / "messages").open("a") as file:
        file.write('{"kind": "note", "te')
    view = tracker.look()
    assert (view.done, view.exploded, list(map(str, view.messages))) == (1, 1000, ["explode sha256:aa: 1", "warning: z"])
    with (work.pulse / "messages").open("a") as file:
        file.write('xt": "half"}\n')
    assert list(map(str, tracker.look().messages)) == ["half"]


def test_an_image_that_is_there_is_no_work(work: Work) -> None:
    work.resolve()
    work.write("image/image.json", {})
    tracker = work.tracker()
    assert tracker.look().layers == ()
    before = (work.results / "image/manifest.json").read_text()
    work.write("image/manifest.json", {"error": "nobody answers"})
    assert tracker.look().layers == ()
    work.write("image/manifest.json", json.loads(before))
    assert tracker.look().layers == ()
    work.resolve((1000, 3001))  # the tag has moved
    assert len(tracker.look().layers) == 2


def test_sizes_that_nobody_says(work: Work) -> None:
    work.resolve((None, None))
    tracker = work.tracker()
    work.partial(A, 10)
    view = tracker.look()
    assert (view.total, view.fetched) == (10, 10)


def test_a_sif_has_nothing_to_explode(work: Work) -> None:
    work.resolve(kind="sif")
    tracker = work.tracker()
    tracker.look()
    work.write(f"layer/{A}.json", {})
    view = tracker.look()
    assert (view.layers[0].step, view.exploded) == (Step.DONE, 1000)


def test_a_manifest_that_says_why_there_is_none(work: Work) -> None:
    work.write("image/manifest.json", {"error": "no such image"})
    assert work.tracker().look().layers == ()


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([(0, 0)], 0),
        ([(0, 0), (1, 100)], 100),
        ([(0, 1000), (2, 1100)], 50),  # what was there before is no speed
        ([(0, 0), (10, 100), (20, 1100)], 100),
        ([(0, 500), (1, 100), (2, 200)], 100),  # begun anew
    ],
    ids=["first", "second", "resumed", "window", "anew"],
)
def test_rate(points: list[tuple[float, float]], expected: float) -> None:
    rate = Rate()
    found = [rate.add(*point) for point in points]
    assert found[-1] == expected


def test_lines_come_at_intervals(work: Work) -> None:
    stream = io.StringIO()
    work.resolve((1_000_000_000, 3_000_000_000))
    tracker = work.tracker()
    with Lines(stream, work.clock) as lines:
        for now, size in ((0, 0), (4, 100), (11, 400), (15, 500), (22, 1000)):
            work.clock.now = now
            work.partial(A, size * 1_000_000)
            lines.show(tracker.look())
    assert stream.getvalue().splitlines() == [
        "[0/2] 400.0 of 4,000.0 MB fetched, 42.9 MB/s, 0.0 MB exploded, 2:57 left",
        "[0/2] 1,000.0 of 4,000.0 MB fetched, 71.4 MB/s, 0.0 MB exploded, 1:38 left",
    ]


def test_the_end_is_told_if_it_is_one(work: Work) -> None:
    work.resolve()
    for done in (A, B):
        stream = io.StringIO()
        work.write(f"explode/{done}.{VARIANT}.json", {})
        with Lines(stream, work.clock) as lines:
            lines.show(work.tracker().look())
        assert stream.getvalue() == ("[2/2] 0.0 MB of layers in 0:00\n" if done == B else "")


def test_silence_keeps_warnings() -> None:
    stream = io.StringIO()
    with Silent(stream) as silent:
        silent.say("waiting")
        silent.show(View(messages=[Message(Kind.RESULT, "explode"), Message(Kind.WARNING, "x")]))
    assert stream.getvalue() == "warning: x\n"


def test_no_bars_but_on_a_terminal() -> None:
    assert type(display(io.StringIO())) is Lines
    assert type(display(io.StringIO(), quiet=True)) is Silent
    assert summary(View()) == "[0/0] 0.0 of 0.0 MB fetched, 0.0 MB exploded, building"


@pytest.mark.parametrize("watched", [True, False], ids=["watched", "alone"])
def test_pulse(tmp_path: Path, watched: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv(heartbeat.VARIABLE, str(tmp_path) if watched else "")
    source = tmp_path / "source"
    source.write_bytes(bytes(5000))
    with source.open("rb", buffering=0) as file, heartbeat.publish_position("sha256:x", file):
        file.read(3000)
    heartbeat.tell_user("a line")
    assert heartbeat.position(tmp_path, "sha256:x") == (3000 if watched else None)
    assert capsys.readouterr().out == ("" if watched else "a line\n")
    assert (tmp_path / "messages").exists() == watched


def test_a_pulse_that_can_not_be_written_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(heartbeat.VARIABLE, str(tmp_path / "gone"))
    with (tmp_path / "source").open("w+b") as file, heartbeat.publish_position("sha256:x", file):
        heartbeat.tell_user("a line")
    assert list(tmp_path.iterdir()) == [tmp_path / "source"]
