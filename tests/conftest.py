"""What all tests share: what a test needs from the machine, no skips in CI, and the test images.

`@pytest.mark.needs("root", "unsquashfs")` skips a test where something is missing, and says what. With
CI=true a skip is a failure: a machine that judges must have everything. `@pytest.mark.slow("why")` leaves a test to
`scripts/test --all`; with `once=True`, CI runs it as root alone, for nothing in it depends on the user.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import cache
from pathlib import Path

import hypothesis
import pytest

from tests.support import images
from tests.support.place import Place, opened

#: Profiles of property tests, `--hypothesis-profile`: a busy machine is no fault of the code. `few` is for a first look, and for
#: where CI tries again.
hypothesis.settings.register_profile("ours", deadline=None)
hypothesis.settings.register_profile("few", deadline=None, max_examples=10)
hypothesis.settings.load_profile("ours")

REPOSITORY = Path(__file__).resolve().parent.parent
#: Where `tests/real/provision` keeps Apptainer.
CACHE = Path(os.environ.get("SREGISTRY_TESTS_CACHE", "/var/cache/sregistry-tests"))


@cache
def _mounts() -> bool:
    """Tell whether this process may mount: root in a container often may not."""
    return os.geteuid() == 0 and subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0


#: What isn't a program on PATH: how to tell that it is there, and what to say if it isn't.
_SPECIAL: dict[str, tuple[Callable[[], bool], str]] = {
    "amd64": (lambda: platform.machine() == "x86_64", "needs a machine of the test images' architecture, amd64"),
    "fuse": (lambda: os.path.exists("/dev/fuse"), "needs FUSE"),
    "glibc": (lambda: platform.libc_ver()[0] == "glibc", "needs glibc"),
    "root": (lambda: os.geteuid() == 0, "needs root"),
    "mount": (_mounts, "needs root and the right to mount"),
    "gridengine": (
        lambda: os.geteuid() == 0 and (CACHE / "gridengine/.ready").exists(),
        "needs root and Grid Engine's packages (tests/real/provision)",
    ),
    "apptainer": (lambda: _mounts() and (CACHE / "apptainer/.ready").exists(), "needs root and Apptainer (tests/real/provision)"),
}


#: Folders of which every test is slow.
_SLOW = {
    "workflow": pytest.mark.slow("whole runs of Snakemake", once=True),
    "whole": pytest.mark.slow("whole pulls"),
    "real": pytest.mark.slow("real tools"),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all-faults", action="store_true", help="disturb each system call of a pull, not a dozen of them: some two minutes")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow(reason, once=False): left to `scripts/test --all`; `once`: CI runs it as root alone")
    # A script's background, nohup and many runners of CI have it ignored, and so would each program that a test interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "needs(*names): skip unless the machine has these programs, or root, mount, apptainer, gridengine")


def pytest_itemcollected(item: pytest.Item) -> None:
    folder = item.path.relative_to(REPOSITORY / "tests").parts[0]
    if folder in _SLOW and item.get_closest_marker("slow") is None:
        item.add_marker(_SLOW[folder])


#: What was left out for being slow: number of tests by reason.
_LEFT_OUT: Counter[str] = Counter()


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    _LEFT_OUT.update(mark.args[0] for mark in (item.get_closest_marker("slow") for item in items) if mark is not None)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if _LEFT_OUT and config.option.markexpr == "not slow":
        terminalreporter.section(f"scripts/test --all adds {_LEFT_OUT.total()} tests")
        for reason, number in _LEFT_OUT.most_common():
            terminalreporter.write_line(f"{number:5}  {reason}")
        terminalreporter.write_line("       and ten times the examples of generated tests")


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("needs"):
        for name in mark.args:
            if name in _SPECIAL:
                there, reason = _SPECIAL[name]
                if not there():
                    pytest.skip(reason)
            elif shutil.which(name) is None:
                pytest.skip(f"needs the program {name}")


def _forbid_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Make a skip a failure in CI; an expected failure stays what it is."""
    if os.environ.get("CI") == "true" and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"no skips in CI: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _forbid_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _forbid_skip(report)
    return report


@pytest.fixture(scope="session")
def layout(tmp_path_factory: pytest.TempPathFactory) -> images.Layout:
    """Return all test images in an OCI image layout."""
    return images.build(tmp_path_factory.mktemp("images") / "layout")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Return a place for whole runs of the workflow, and a registry with one image."""
    with opened(tmp_path) as place:
        yield place
