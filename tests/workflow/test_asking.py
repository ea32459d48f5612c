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
    "a cluster": ["-n", "--profile", str(WORKFLOW / "profiles/slurm"), "--forceall", "--config", BATCH, "refresh=yes"],
    **{option: [f"--{option}", "--config", BATCH] for option in ("lint", "summary", "dag", "list", "unlock")},
    "report": ["--report", "../report.html", "--config", BATCH],
    "pattern": ["-n", "--config", "images=[{uri: demo/tiny, tags: '*'}]", "refresh=yes"],
}


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
        """Return times and content of all that a run leaves, but for Snakemake's own."""
        paths = (path for path in self.place.root.rglob("*") if ".snakemake" not in path.parts and path.is_file())
        return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in paths if path.name != "report.html"}

    def ask(self, *commands: Sequence[str]) -> list[list[str]]:
        """Ask, and see that nothing changes."""
        before = self.files()
        found = self(*commands)
        assert self.files() == before
        return [rules for rules, _ in found]

    def run(self) -> list[str]:
        return self(["--config", BATCH])[0][0]


def test_what_asks_changes_nothing_and_tells_what_a_run_does(place: Place) -> None:
    place.layout.tag("demo/two:1", place.layout.image([layer([file(b"two")])], {"Cmd": ["/x"]}))
    asking = Asking(place)
    image = place.images / "demo-tiny:1.sif"
    # What no manifest tells yet is not known: only the last jobs of an image are.
    unknown = sorted(2 * ["manifest", "image", "catalog"] + ["manifests"])
    both = sorted(2 * sorted(set(ALL) - {"manifests"}) + ["manifests"])
    one_anew = sorted(set(ALL) - {"manifest", "manifests"})

    assert asking.ask(*DRY.values()) == [unknown] * 3
    assert asking.run() == both
    assert asking.ask(*DRY.values()) == [[], unknown, unknown]
    image.unlink()
    assert asking.ask(DRY["as it is"]) == [["catalog", "image"]]
    shutil.rmtree(place.root / "cache")
    place.layout.tag("demo/two:1", place.layout.image([layer([file(b"moved")])], {"Cmd": ["/x"]}))
    assert asking.ask(*DRY.values(), *OTHERS.values())[:3] == [one_anew, unknown, unknown]
    assert asking.run() == one_anew
