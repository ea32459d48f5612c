"""`snakemake --report`: what it shows, of a real run, looked at in a real browser.

Nobody needs a report for an image: what is checked as well is that a run does nothing for it.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from sregistry.pipeline.report import data as overview
from sregistry.pipeline.report import pages
from sregistry.pipeline.report.data import Asked, Image, Missing, Overview
from sregistry.results import failures
from sregistry.results.job_logs import JobRun
from tests.support.images import layer
from tests.support.place import Place
from tests.support.snakemake import NOTHING
from tests.support.tarball import file

TOKEN = "s3cr3t-t0ken-0f-the-registry"
#: axe-core, which the package brings.
AXE = resources.files("axe_playwright_python") / "axe.min.js"
START = 1_700_000_000.0


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


def image(name: str, layers: Mapping[str, int | None]) -> Image:
    return Image(
        key=f"{name}-00000000",
        uri=f"nvcr.io/demo/{name}:1",
        platform="linux/amd64",
        format="sif",
        path=f"/images/demo-{name}:1.sif",
        digest=digest(900),
        version=f"{901:064x}",
        size=5_000_000,
        layers=layers,
        seconds=2.5,
        made=datetime.fromtimestamp(START, UTC),
    )


def view(count: int) -> Overview:
    """Return an overview of many images of one base, whose jobs ran by eights, the base's a day before."""
    base: dict[str, int | None] = {digest(n): 40_000_000 * (n + 1) for n in range(5)}
    images = [image(f"tool-{n}", {**base, digest(100 + n): 1_000_000 * n, digest(200 + n // 2): 30_000_000}) for n in range(count)]
    jobs = [JobRun("layer", name, START - 86_410, START - 86_400, 30e6) for name in base]
    jobs += [JobRun("image", made.key, START + n // 8 * 3, START + n // 8 * 3 + 2 + n % 3 / 4, 40e6) for n, made in enumerate(images)]
    return Overview(images=tuple(images), missing=(), jobs=tuple(jobs), exploded=700_000_000)


VIEWS = {
    "none": Overview(images=(), missing=(Missing("nvcr.io/demo/gone:1", ""),), jobs=(), exploded=0),
    "one": view(1),
    "fifty": view(50),
    "unknown sizes": Overview(
        images=(image("old", {digest(1): None}),), missing=(), jobs=(JobRun("manifests", "x", START, START, None),), exploded=0
    ),
}


# -- pages


@pytest.mark.parametrize("seen", VIEWS.values(), ids=VIEWS)
def test_equal_overviews_give_equal_pages(seen: Overview) -> None:
    made = pages.pages(seen)
    assert list(made) == ["images", "sharing", "timeline", "costs"]
    assert pages.pages(seen) == made
    assert not any("http://" in page or "https://" in page or "<script" in page for page in made.values())


def test_what_others_wrote_is_no_markup() -> None:
    hostile = '<script>alert("1")</script>'
    seen = Overview(images=(image(hostile, {digest(1): 1}),), missing=(Missing("x", hostile),), jobs=(), exploded=0)
    for name, page in pages.pages(seen).items():
        assert "<script" not in page
        assert ("&lt;script&gt;" in page) == (name in ("images", "sharing"))


def test_what_images_share() -> None:
    """600 MB of base six times, 30 MB for each two, and what each has for itself; a colour more in the legend."""
    page = pages.pages(view(6))
    assert "6 images of 3.8 GB together, of which 705 MB are distinct: 81 % needn" in page["sharing"]
    assert page["sharing"].count('class="most"') == 6 * 5 + 1
    assert page["sharing"].count('class="some"') == 6 + 1
    assert page["sharing"].count('class="own"') == 6 + 1
    assert "nvcr.io/demo/tool-1:1: 630 MB shared, 1.0 MB its own" in page["sharing"]


def test_a_pause_is_a_break() -> None:
    page = pages.pages(view(20))["timeline"]
    assert page.count('class="break"') == 1
    assert "24 h 00 min in which none of these jobs ran" in page
    assert "25 jobs in 18 s" in page
    assert "8 at a time at most" in page


def test_many_pauses_leave_room_for_the_jobs() -> None:
    jobs = tuple(JobRun("catalog", "x", START + n * 3600, START + n * 3600 + 1, None) for n in range(60))
    page = pages.pages(Overview(images=(), missing=(), jobs=jobs, exploded=0))["timeline"]
    assert page.count('class="break"') == 59
    assert f'viewBox="0 0 {500 + 59 * 24} ' in page


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (99_400, "99.4 kB"), (123_456, "123 kB"), (999_600, "1.0 MB"), (12e12, "12000.0 GB")],
)
def test_sizes(count: float, text: str) -> None:
    assert pages.size(count) == text


@pytest.mark.parametrize(
    ("duration", "text"),
    [(0, "0 s"), (0.25, "0.25 s"), (9.94, "9.9 s"), (42.4, "42 s"), (100, "1 min 40 s"), (7200, "2 h 00 min"), (86_400 * 9, "9 days")],
)
def test_durations(duration: float, text: str) -> None:
    assert pages.seconds(duration) == text


def test_damaged_files_are_passed_over(tmp_path: Path) -> None:
    """What is half-written, of another program, or no file at all; and an image of which nothing is left."""
    for stage, name, text in [
        ("image", "x-00000000.tsv", "s\tmax_rss\n1.5\t-\n"),
        ("sandbox", "x-00000000.tsv", "s\tmax_rss\n"),
        ("catalog", "x-00000000.tsv", "\0\xff"),
        ("metadata", "x-00000000.tsv", "max_rss\n1\n"),
        ("manifest", "other-00000000.tsv", "s\tmax_rss\n1\t1\n"),
    ]:
        path = tmp_path / "benchmarks" / stage / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
        os.utime(path, (START, START))
    (tmp_path / "benchmarks/layer/x.tsv").mkdir(parents=True)
    for stage, error in (("sandbox", "the first"), ("image", "the disk is full")):
        failures.note(tmp_path / f"results/x-00000000/{stage}.json", failures.Failure(error=error))
    (tmp_path / "results/summary.json").write_text('{"images": [{"path": "/images/z", "reason": "layer: gone"}, {}]}')
    seen = overview.read(tmp_path, [Asked(f"{name}-00000000", f"demo/{name}:1", f"/images/{name}", "gzip") for name in "xyz"])
    assert seen.jobs == (JobRun("image", "x-00000000", START - 1.5, START, None),)
    assert (seen.images, seen.exploded) == ((), 0)
    assert seen.missing[0] == Missing("demo/x:1", "the disk is full")
    assert seen.missing[1].why.startswith("can't read ")


# -- a run


def fill(place: Place) -> None:
    """Give the registry three images, two of them of one base, and the token that it may hear."""
    base = [layer([file(b"base-%d" % n, os.urandom(200_000))]) for n in range(2)]
    for name, below in (("one", base), ("two", base), ("other", [])):
        place.layout.tag(f"demo/{name}:1", place.layout.image([*below, layer([file(name.encode(), os.urandom(90_000))])], {}))
    place.environ["SREGISTRY_NVIDIA_TOKEN"] = TOKEN


IMAGES = "uri=[demo/one:1,demo/two:1,demo/other:1]"


@pytest.mark.slow("whole runs of Snakemake", once=True)
def test_a_run_spends_nothing_on_it(place: Place) -> None:
    fill(place)
    assert place.run(IMAGES, flags=("-n",)).code == 0
    assert not (place.work / "results/report").exists()
    assert place.run(IMAGES, flags=("--report", "early.html")).code == 0, "there is no run yet"
    assert not (place.work / "results/report").exists()
    done = place.run(IMAGES)
    assert done.code == 0, done.text
    assert not (place.work / "results/report").exists()
    made = place.run(IMAGES, flags=("--report", "report.html"))
    assert made.code == 0, made.text
    assert "Adding images.html" in made.text
    assert "Missing metadata" not in made.text
    assert NOTHING in place.run(IMAGES).text, "a report is no reason to run anything"


@pytest.mark.slow("whole runs of Snakemake", once=True)
def test_no_secret(place: Place) -> None:
    fill(place)
    (place.work / "batch.yaml").write_text(json.dumps({"images": ["demo/one:1", "demo/two:1"]}))
    batch = ("--configfile", "batch.yaml")
    assert place.run(flags=batch).code == 0
    for name in ("report.html", "report.zip"):
        assert place.run(flags=(*batch, "--report", name)).code == 0
    with zipfile.ZipFile(place.work / "report.zip") as archive:
        packed = {name: archive.read(name) for name in archive.namelist()}
    assert sorted(Path(name).name for name in packed) == ["costs.html", "images.html", "report.html", "sharing.html", "timeline.html"]
    for data in (*packed.values(), (place.work / "report.html").read_bytes()):
        assert TOKEN.encode() not in data
    (images,) = [data.decode() for name, data in packed.items() if name.endswith("images.html")]
    for what in ("2 images", f"{place.host}/demo/one:1", str(place.images / "demo-two:1.sif"), "sha256:"):
        assert what in images


@pytest.mark.slow("whole runs of Snakemake", once=True)
def test_an_image_that_failed(place: Place) -> None:
    fill(place)
    both = "uri=[demo/one:1,demo/none:1]"
    assert place.run(both).code == 1
    made = place.run(both, flags=("--report", "report.zip"))
    assert made.code == 0, made.text
    with zipfile.ZipFile(place.work / "report.zip") as archive:
        (page,) = [archive.read(name).decode() for name in archive.namelist() if name.endswith("images.html")]
    assert "1 image. Times are UTC." in page
    assert "1 image that is not made. The next run tries again." in page
    assert f"{place.host} has no image demo/none:1 (404 Not Found" in page


@pytest.mark.slow("whole runs of Snakemake", once=True)
def test_together_with_the_run(place: Place) -> None:
    fill(place)
    done = place.run(IMAGES, flags=("--report", "report.html", "--report-after-run"))
    assert done.code == 0, done.text
    assert "Adding timeline.html" in done.text
    assert "catalog" in done.rules


@pytest.mark.slow("whole runs of Snakemake", once=True)
def test_not_writable(place: Place) -> None:
    fill(place)
    (place.work / "results").mkdir()
    (place.work / "results/report").write_text("in the way")
    made = place.run(IMAGES, flags=("--report", "report.html", "--report-after-run"))
    (line,) = [line for line in made.text.splitlines() if line.startswith("error: ")]
    assert (made.code, "can't write" in line) == (1, True), line


# -- in a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield opened
        opened.close()


def watched(page: Page) -> list[str]:
    """Return a list that fills with what a page complains of, or fetches from elsewhere."""
    seen: list[str] = []
    page.on("console", lambda message: seen.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: seen.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith(("file:", "data:", "blob:")) else seen.append(request.url))
    return seen


@pytest.mark.slow("a browser looks at the report", once=True)
@pytest.mark.needs("chromium")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("seen", VIEWS.values(), ids=VIEWS)
def test_accessibility(seen: Overview, scheme: str, browser: Browser, tmp_path: Path) -> None:
    page = browser.new_page(color_scheme="dark" if scheme == "dark" else "light", viewport={"width": 700, "height": 800})
    try:
        complaints = watched(page)
        for path in pages.write(seen, tmp_path):
            page.goto(Path(path).as_uri())
            page.evaluate(AXE.read_text())
            found = page.evaluate("axe.run()")
            assert [rule["id"] for rule in found["violations"]] == []
            assert len(found["passes"]) > 5
            assert page.evaluate("document.documentElement.scrollWidth") <= 700, "only tables and the chart scroll sideways"
            assert (page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)") == (scheme == "light")
        assert complaints == []
    finally:
        page.close()


@pytest.mark.slow("a browser looks at the report", once=True)
@pytest.mark.needs("chromium")
def test_looked_at(place: Place, browser: Browser) -> None:
    fill(place)
    assert place.run(IMAGES).code == 0
    assert place.run(IMAGES, flags=("--report", "report.html")).code == 0
    assert place.run(IMAGES, flags=("--report", "report.zip")).code == 0
    with zipfile.ZipFile(io.BytesIO((place.work / "report.zip").read_bytes())) as archive:
        archive.extractall(place.work / "unpacked")
    page = browser.new_page(viewport={"width": 1300, "height": 800})
    try:
        complaints = watched(page)
        blank = len(page.screenshot())
        for report in (place.work / "report.html", *(place.work / "unpacked").rglob("report.html")):
            page.goto(report.as_uri())
            page.get_by_text("made into images for Singularity and Apptainer").wait_for()
            page.get_by_text("Statistics").first.click()
            page.locator("canvas, svg.marks").first.wait_for()
            page.reload()
            page.get_by_text("Results").first.click()
            page.get_by_text("Overview", exact=True).first.click()
            for title, says, caption in [
                ("Images", "3 images, of ", "Each image that was made"),
                ("Shared layers", "in half of the images, or more", "Which layers the images have in common"),
                ("Timeline", "at a time at most", "When each job began and ended"),
                ("Time and bytes", "Jobs by stage", "How long the jobs of each stage took"),
            ]:
                row = page.get_by_role("row").filter(has=page.get_by_role("cell", name=title, exact=True))
                row.locator("a").first.click()
                frame = page.frame_locator("iframe")
                frame.get_by_role("heading", name=title, exact=True).wait_for()
                frame.get_by_text(says).first.wait_for()
                assert len(page.screenshot()) > 5 * blank
                row.locator("a").last.click()
                page.get_by_text(caption).wait_for()
                page.get_by_text("Overview", exact=True).first.click()
        assert complaints == []
    finally:
        page.close()
