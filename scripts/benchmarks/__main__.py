"""The command line of the benchmark."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from benchmarks import batches, catalog, connections, images, levels, measure, registry, report, scale
from benchmarks.packages import BenchmarkError
from benchmarks.peers import PEERS, WORKS, Peer
from benchmarks.report import Content, Results, Run

#: What is needed of another work's state, in the order of a session.
_AFTER_COLD = ("next", "again")
_LEVELS = "levels"
_ALL = [*WORKS, _LEVELS]
#: Measured only when it is asked for: it says nothing about peers.
_SCALE = "scale"
#: As that, and each prints its own table.
_TABLES = {"connections": connections.main, "catalog": catalog.main}


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark and return the exit code: 0 done, 1 failed, 2 bad usage (by argparse)."""
    options = _parser().parse_args(arguments)
    try:
        _benchmark(options)
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/benchmark",
        description="Run sregistry and its peers on the same images from a registry on this machine, and print what it cost.",
        epilog="Images are made once and kept in $SREGISTRY_BENCHMARK_CACHE, else ~/.cache/sregistry-benchmark (5 GB; small: 1 GB).",
    )
    parser.add_argument("--quick", action="store_true", help="small images: a few minutes in all")
    parser.add_argument("--rounds", type=_count, default=3, metavar="N", help="how often each is run, in turn (3)")
    parser.add_argument(
        "--only",
        type=_words(*WORKS, _LEVELS, _SCALE, *_TABLES),
        metavar="WORK,…",
        help=f"of {', '.join([*WORKS, _LEVELS])}; or {', '.join([_SCALE, *_TABLES])}",
    )
    parser.add_argument(
        "--peers", type=_words(*(peer.name for peer in PEERS)), metavar="PEER,…", help=f"of {', '.join(p.name for p in PEERS)}"
    )
    parser.add_argument("--batch", action="store_true", help="only planning and scheduling, for 1 to 200 images; no peers")
    parser.add_argument("--drop-caches", action="store_true", help="empty the page cache before each run (root)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="work in DIR and keep logs, images and results there")
    return parser


def _count(word: str) -> int:
    number = int(word)
    if number < 1:
        raise ValueError
    return number


def _words(*known: str) -> Callable[[str], list[str]]:
    """Return a type of argparse: words of *known*, with commas between."""

    def read(text: str) -> list[str]:
        words = text.split(",")
        for word in words:
            if word not in known:
                raise argparse.ArgumentTypeError(f"{word!r} is none of {', '.join(known)}")
        return words

    return read


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _benchmark(options: argparse.Namespace) -> None:
    cache = Path(os.environ.get("SREGISTRY_BENCHMARK_CACHE") or "~/.cache/sregistry-benchmark").expanduser().absolute()
    cache.mkdir(parents=True, exist_ok=True)
    if options.batch:
        found = [batch for case in batches.cases(quick=options.quick) for batch in _batch(case, cache, options)]
        _write(Results(command=_command(), machine=_machine(), batches=found), options.keep or cache / "results", "batches")
        return
    works = options.only or _ALL
    for name, table in _TABLES.items():
        if name in works:
            table()
    works = [work for work in works if work not in _TABLES]
    if not works:
        return
    scaled = _scale(cache, options) if _SCALE in works else []
    if works == [_SCALE]:
        _write(Results(command=_command(), machine=_machine(), scale=scaled), options.keep or cache / "results", _SCALE)
        return
    wanted = [peer for peer in PEERS if options.peers is None or peer.name in options.peers]
    missing = {peer.title: lacks for peer in wanted if (lacks := peer.lacks())}
    there = [peer for peer in wanted if peer.title not in missing]
    if options.drop_caches and os.geteuid() != 0:
        raise BenchmarkError("--drop-caches needs root")
    suite = images.suite(quick=options.quick)
    made = images.make(cache, suite, _say)
    with ExitStack() as stack:
        if options.keep:
            space = options.keep.absolute()
            space.mkdir(parents=True, exist_ok=True)
        else:
            space = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="run-", dir=cache, ignore_cleanup_errors=True)))
        logs = _empty((options.keep or cache).absolute() / "logs")
        address = stack.enter_context(registry.serve(cache / "registry", logs / "registry.log"))
        registry.push(made, address)
        runs: list[Run] = []
        weighed: list[Run] = []
        for number in range(1, options.rounds + 1):
            # Each round begins with another peer, so that none always follows the same one.
            turn = (number - 1) % max(len(there), 1)
            for peer in [*there[turn:], *there[:turn]]:
                runs += _session(peer, works, made.suite, address, space / f"{number}-{peer.name}", logs, number, options)
            if _LEVELS in works:
                weighed += _levels(made, space / f"{number}-{_LEVELS}", logs, number, options)
    sample = made.layers[suite.sample]
    results = Results(
        command=_command(),
        machine=_machine(),
        images=[_content(made, image) for image in suite.images],
        peers={peer.name: peer.title for peer in there},
        missing=missing,
        runs=runs,
        sample=Content(image=sample.name, layers=1, tar=sample.tar, size=sample.size, entries=sample.entries),
        levels=weighed,
        scale=scaled,
    )
    _write(results, options.keep or cache / "results", "quick" if options.quick else "large")


def _session(
    peer: Peer, works: list[str], suite: images.Suite, address: str, state: Path, logs: Path, number: int, options: argparse.Namespace
) -> Iterator[Run]:
    """Run a peer's works of a round. What follows a cold pull has its state; the others begin with none."""
    chosen = [work for work in works if work in peer.works]
    follow = [work for work in _AFTER_COLD if work in chosen]
    if "cold" in chosen or follow:
        folder = _empty(state / "cold")
        for work in ["cold", *follow]:
            run = _run(peer, work, [suite.second if work == "next" else suite.first], address, folder, logs, number, options)
            if work in chosen:
                yield run
        _clean(folder, options)
    for work, wanted in (("fast", [suite.first]), ("batch", list(suite.batch))):
        if work in chosen:
            folder = _empty(state / work)
            yield _run(peer, work, wanted, address, folder, logs, number, options)
            _clean(folder, options)


def _run(peer: Peer, work: str, wanted: list[str], address: str, state: Path, logs: Path, number: int, options: argparse.Namespace) -> Run:
    command = peer.command(work, wanted, address, state)
    log = logs / f"{number}-{peer.name}-{work}.log"
    _drop(options)
    cost = measure.run(command.command, environ=command.environ, cwd=command.cwd, log=log)
    size = 0
    for path in command.made:
        if not path.is_file():
            raise BenchmarkError(f"{peer.title} left no {path}; see {log}")
        size += path.stat().st_size
    _say(f"round {number}: {peer.title}, {work}: {cost.wall:.1f} s")
    return Run(work=work, peer=peer.name, round=number, cost=cost, size=size)


def _levels(made: images.Made, folder: Path, logs: Path, number: int, options: argparse.Namespace) -> Iterator[Run]:
    layer = made.layers[made.suite.sample]
    _empty(folder)
    for level in levels.levels(layer, made.layout.path(layer.digest), folder):
        _drop(options)
        cost = measure.run(level.command, environ=os.environ, cwd=folder, log=logs / f"{number}-{_LEVELS}.log")
        _say(f"round {number}: {level.title}: {cost.wall:.1f} s")
        yield Run(work=_LEVELS, peer=level.title, round=number, cost=cost, size=levels.weigh(level.made))
    _clean(folder, options)


def _batch(case: batches.Case, cache: Path, options: argparse.Namespace) -> Iterator[batches.Batch]:
    with tempfile.TemporaryDirectory(prefix="run-", dir=cache, ignore_cleanup_errors=True) as folder:
        found = batches.measure(case, Path(folder))
    _say(f"{case.images} images of {case.layers} layers: {found.empty.wall:.1f} s empty, {found.whole.wall:.1f} s whole")
    yield found


def _scale(cache: Path, options: argparse.Namespace) -> list[scale.Scaled]:
    found = []
    place = options.keep or cache
    place.mkdir(parents=True, exist_ok=True)
    for case in scale.cases(quick=options.quick):
        with tempfile.TemporaryDirectory(prefix="run-", dir=place, ignore_cleanup_errors=True) as folder:
            for scaled in scale.measure(case, Path(folder)):
                _say(f"{case.name}: {scaled.stage}: {scaled.cpu:.1f} s of CPU, {scaled.memory / 1e6:.0f} MB")
                found.append(scaled)
    return found


def _command() -> str:
    return shlex.join(["scripts/benchmark", *sys.argv[1:]])


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _clean(folder: Path, options: argparse.Namespace) -> None:
    """Give the disk back to the next one."""
    if not options.keep:
        shutil.rmtree(folder, ignore_errors=True)


def _drop(options: argparse.Namespace) -> None:
    os.sync()
    if options.drop_caches:
        Path("/proc/sys/vm/drop_caches").write_text("3\n")


def _content(made: images.Made, image: str) -> Content:
    layers = made.of(image)
    tar, size, entries = (sum(values) for values in zip(*((layer.tar, layer.size, layer.entries) for layer in layers), strict=True))
    return Content(image=image, layers=len(layers), tar=tar, size=size, entries=entries)


def _machine() -> str:
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = next((line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return f"{len(os.sched_getaffinity(0))} cores ({model}), {memory:.0f} GB of memory, Linux {platform.release()}"


def _write(results: Results, folder: Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = report.markdown(results)
    (folder / f"{name}.md").write_text(text)
    (folder / f"{name}.json").write_text(json.dumps(asdict(results), indent=1))
    print(text)
    _say(f"written: {folder / name}.md, {folder / name}.json")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
