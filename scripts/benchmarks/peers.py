"""The peers, and what each runs for each kind of work.

| work | before | is run |
|---|---|---|
| cold | nothing | the first release |
| next | cold, in the same folder | the next release, of which all but two small layers are there |
| again | cold, in the same folder | the first release once more |
| fast | nothing | the first release, at the level that is fastest |
| batch | nothing | images over common bases, in one run |
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

WORKS = {
    "cold": "Cold pull, default level",
    "fast": "Cold pull, fastest level",
    "next": "Next release, all but two small layers shared",
    "again": "The same image again",
    "batch": "Batch of images over common bases",
}

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class Command:
    """What to start, where, and the image files that must be there afterwards."""

    command: Sequence[str]
    environ: Mapping[str, str]
    cwd: Path
    made: Sequence[Path]


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A way to get images.

    Args:
        works: kinds of work that it can do.
        lacks: names what the machine lacks for it, else nothing.
        command: gives the command for a kind of work, the images (without registry), the registry's
            host:port and the folder of its state.
    """

    name: str
    title: str
    works: frozenset[str]
    lacks: Callable[[], str]
    command: Callable[[str, Sequence[str], str, Path], Command]


# -- ours


def _ours(work: str, images: Sequence[str], registry: str, state: Path) -> Command:
    cwd, storage = state / "work", state / "storage"
    cwd.mkdir(exist_ok=True)
    options = [f"uri={json.dumps(list(images))}"]
    if work == "fast":
        options.append('compression={"level": "fast"}')
    places = {"SREGISTRY_STORAGE": storage, "SREGISTRY_DATABASE": state / "database", "SINGULARITY_CACHEDIR": state / "cache"}
    return Command(
        command=[
            str(Path(sys.executable).with_name("snakemake")),
            "--snakefile",
            str(REPOSITORY / "workflow/Snakefile"),
            "--config",
            *options,
        ],
        environ={
            **inherited(),
            **{k: str(v) for k, v in places.items()},
            "SREGISTRY_NVIDIA_BASE": registry,
            "SREGISTRY_NVIDIA_NOHTTPS": "yes",
        },
        cwd=cwd,
        made=[storage / f"{image.replace('/', '-')}.sif" for image in images],
    )


def _ours_lacks() -> str:
    return "" if Path(sys.executable).with_name("snakemake").exists() else "snakemake"


# -- Apptainer


def apptainer() -> list[str]:
    """Return how to start Apptainer: the one on PATH, else the one that tests/real/provision makes; else nothing."""
    if shutil.which("apptainer"):
        return ["apptainer"]
    ready = Path(os.environ.get("SREGISTRY_TESTS_CACHE", "/var/cache/sregistry-tests"), "apptainer/.ready")
    return [str(REPOSITORY / "tests/real/apptainer")] if ready.exists() and os.geteuid() == 0 else []


def _apptainer(work: str, images: Sequence[str], registry: str, state: Path) -> Command:
    program = apptainer()
    if program[0] != "apptainer":
        program += ["--bind", str(state)]
    options = ["pull", "--no-https", "--force"]
    if work == "fast":
        # `pull` has no options for mksquashfs; `build` from the same address does the same work.
        options = ["build", "--no-https", "--force", "--mksquashfs-args", "-comp gzip -Xcompression-level 1"]
    made = [state / f"{_plain(image)}.sif" for image in images]
    steps = [[*program, *options, str(path), f"docker://{registry}/{image}"] for path, image in zip(made, images, strict=True)]
    (state / "tmp").mkdir(exist_ok=True)
    environ = {
        **inherited(),
        "APPTAINER_CACHEDIR": str(state / "cache"),
        "APPTAINER_TMPDIR": str(state / "tmp"),
        "TMPDIR": str(state / "tmp"),
    }
    return Command(command=_shell(steps), environ=environ, cwd=state, made=made)


# -- skopeo, umoci, mksquashfs


def _tools(work: str, images: Sequence[str], registry: str, state: Path) -> Command:
    made = [state / f"{_plain(image)}.squashfs" for image in images]
    rootless = [] if os.geteuid() == 0 else ["--rootless"]
    steps: list[list[str]] = []
    for path, image in zip(made, images, strict=True):
        layout, bundle = f"{state / 'layout'}:{_plain(image)}", str(state / "bundle")
        steps += [
            ["rm", "-rf", bundle],
            ["skopeo", "copy", "--quiet", "--src-tls-verify=false", f"docker://{registry}/{image}", f"oci:{layout}"],
            ["umoci", "unpack", *rootless, "--image", layout, bundle],
            ["mksquashfs", f"{bundle}/rootfs", str(path), "-noappend", "-quiet", "-no-progress"],
        ]
        if work == "fast":
            steps[-1] += ["-comp", "gzip", "-Xcompression-level", "1"]
    return Command(command=_shell(steps), environ=inherited(), cwd=state, made=made)


def _tools_lack() -> str:
    return ", ".join(name for name in ("skopeo", "umoci", "mksquashfs") if shutil.which(name) is None)


def _plain(image: str) -> str:
    return image.replace("/", "-").replace(":", "-")


def _shell(steps: Sequence[Sequence[str]]) -> list[str]:
    return ["bash", "-euc", "\n".join(shlex.join(step) for step in steps)]


def inherited() -> dict[str, str]:
    """Return this environment without what would change a peer, or have it ask a proxy for 127.0.0.1."""
    ours = ("SREGISTRY_", "APPTAINER_", "SINGULARITY_", "SNAKEMAKE_", "PYTHON")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**kept, "no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1"}


#: The measure of all others.
REFERENCE = "apptainer"

PEERS: tuple[Peer, ...] = (
    Peer(name="ours", title="sregistry", works=frozenset(WORKS), lacks=_ours_lacks, command=_ours),
    Peer(
        name=REFERENCE,
        title="Apptainer",
        works=frozenset(WORKS),
        lacks=lambda: "" if apptainer() else "apptainer (on PATH, or made by tests/real/provision)",
        command=_apptainer,
    ),
    Peer(name="tools", title="skopeo + umoci + mksquashfs", works=frozenset(WORKS) - {"again"}, lacks=_tools_lack, command=_tools),
)
