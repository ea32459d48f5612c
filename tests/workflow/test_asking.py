"""What only asks changes nothing on disk, in any state of a working folder, and a dry run tells what a run does."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence

from tests.support import forked
from tests.support.images import layer
from tests.support.place import Place
from tests.support.snakemake import ALL, WORKFLOW, inherited
from tests.support.tarball import file

BATCH = "uri=[demo/tiny:1,demo/two:1]"
DRY: dict[str, Sequence[str]] = {
    "as it is": ["-n", "--config", BATCH],
    "refresh": ["-n", "--config", BATCH, "refresh=yes"],
    "forced manifests": ["-n", "--forcerun", "manifest", "--config", BATCH],
}
OTHERS: dict[str, Sequence[str]] = {
    "a cluster": ["-n", "--workflow-profile", str(WORKFLOW / "profiles/slurm"), "--forceall", "--config", BATCH, "refresh=yes"],
    **{option: [f"--{option}", "--config", BATCH] for option in ("list", "unlock", "rulegraph")},
    "pattern": ["-n", "--config", "images=[{uri: demo/tiny, tags: '*'}]", "refresh=yes"],
}
#: Asked in every state of the folder, after a dry run of it as it is.
EACH: list[Sequence[str]] = [
    DRY["as it is"],
    *([f"--{option}", "--config", BATCH] for option in ("lint", "summary", "dag")),
    ["--report", "../report.html", "--config", BATCH],
]


class Asking:
    """Runs Snakemake many times in one place."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.environ = {**inherited(), **place.environ}

    def __call__(self, *commands: Sequence[str]) -> list[tuple[list[str], str]]:
        """Return the rules of the jobs, and the output, of each command."""
        start = ["--snakefile", str(WORKFLOW / "Snakefile")]
        found = []
        for code, text in forked.each([[*start, *command] for command in commands], self.place.work, self.environ):
            assert code == 0 and "Traceback" not in text, text
            found.append((sorted(rule for rule in re.findall(r"^Job \d+: (\w+)", text, re.MULTILINE) if rule != "all"), text))
        return found

    def files(self) -> dict[str, tuple[int, bytes]]:
        """Return times and content of all that a run leaves, folders included, but for Snakemake's own."""
        own = {self.place.root, self.place.work, self.place.root / "report.html"}
        paths = (path for path in self.place.root.rglob("*") if ".snakemake" not in path.parts and path not in own)
        return {str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"") for path in paths}

    def ask(self, *commands: Sequence[str]) -> list[list[str]]:
        """Ask, and see that nothing changes."""
        before = self.files()
        found = self(*commands)
        assert self.files() == before
        return [rules for rules, _ in found]

    def state(self, *more: Sequence[str]) -> list[list[str]]:
        """Ask all of EACH, and *more*; return the rules of the dry runs."""
        first, *others = self.ask(*EACH, *more)
        return [first, *others[len(EACH) - 1 :]]

    def run(self, *flags: str) -> list[str]:
        return self([*flags, "--config", BATCH])[0][0]


def test_what_asks_changes_nothing_and_tells_what_a_run_does(place: Place) -> None:
    place.layout.tag("demo/two:1", place.layout.image([layer([file(b"two")])], {"Cmd": ["/x"]}))
    asking = Asking(place)
    image = place.images / "demo-tiny:1.sif"
    # What no manifest tells yet is not known: only the last jobs of an image are.
    unknown = sorted(2 * ["manifest", "image", "catalog"] + ["manifests"])
    one_anew = sorted(set(ALL) - {"manifest", "manifests"})
    again = [DRY["refresh"], DRY["forced manifests"]]

    # nothing there
    assert asking.state(*again) == [unknown] * 3
    # half-made
    assert asking.run("fetch") == sorted(["manifests", "fetch", *2 * ["manifest", "layer"]])
    rest = sorted(2 * sorted(set(one_anew) - {"layer"}))
    assert asking.state() == [rest]
    # finished
    assert asking.run() == rest
    assert asking.state(*again) == [[], unknown, unknown]
    # an image deleted
    image.unlink()
    assert asking.state() == [["catalog", "image"]]
    # its layers deleted, too, and the other's tag moved
    shutil.rmtree(place.root / "cache")
    place.layout.tag("demo/two:1", place.layout.image([layer([file(b"moved")])], {"Cmd": ["/x"]}))
    assert asking.state(*again, *OTHERS.values())[:3] == [one_anew, unknown, unknown]
    assert asking.run() == one_anew
