"""The metadata stage's content: what is added to an image so that Singularity and Apptainer can use it.

```
/                          first layer: environment_tar     last layer: metadata_tar     SIF: sif_objects
├── .singularity.d/
│   ├── actions/           exec run shell start test
│   ├── env/               01-base.sh 90-environment.sh     10-docker2singularity.sh     inspect-metadata.json
│   │                      94-appsbase.sh 95-apps.sh
│   │                      99-base.sh 99-runtimevars.sh
│   ├── libs/              (libraries of the host's GPU)
│   ├── runscript                                           Entrypoint, Cmd              inspect-metadata.json
│   ├── startscript        does nothing
│   ├── labels.json                                         Labels                       inspect-metadata.json
│   └── Singularity                                         where the image is from      the definition file
├── .exec .run .shell .test environment singularity         links to the above
├── dev etc home proc root sys tmp var/tmp                  mount points, where the image has none
└── etc/                                                    hosts resolv.conf: empty, mount points
                                                            Config                       oci-config.json
```

The environment lies under the image's layers, so an image that brings its own `.singularity.d` keeps
it; the metadata lies over them. The scripts are read by any of dash, busybox, bash and the shell inside
Apptainer (see `environment`). Sections named "§" are those of the project's specification,
oci-to-sif.md. Everything is a function of the arguments: no clock.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sregistry.errors import DocumentError
from sregistry.image.base_environment import DIRECTORIES, FOLDER, LINKS, SCRIPTS, STARTSCRIPT, USER_ENVIRONMENT, USER_ENVIRONMENT_TEXT
from sregistry.oci.documents import ImageConfig
from sregistry.oci.json_fields import whole

#: Engines know the file by its name, and complete PATH after it (§7).
_ENVIRONMENT = f"{FOLDER}/env/10-docker2singularity.sh"

#: The line by which an engine knows a runscript that it may interpret itself, which is what makes
#: `run` work in an image without a shell (§7). It stands behind `exec` and is never reached.
_MAGIC = 'eval "set ${SINGULARITY_OCI_RUN}"'

#: Squashfs keeps times as unsigned 32 bits.
_LATEST = 0xFFFFFFFF

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
_MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"]


class Member(NamedTuple):
    """A member of a tar: a directory (no content), a file, or a link (a text)."""

    path: str
    mode: int
    content: bytes | str | None


def environment_tar() -> bytes:
    """Return the base environment as an uncompressed tar: the same bytes for every image.

    It is the lowest layer. Owners and times are 0; directories are 0755, `tmp` and `var/tmp` 1777.
    """
    members = [Member(path, mode, None) for path, mode in DIRECTORIES.items()]
    members += [Member(path, 0o755, text.encode()) for path, text in SCRIPTS.items()]
    members += [Member(path, 0o777, target) for path, target in LINKS.items()]
    return tarball(members, 0)


# -- what an image's config becomes (§8, §9) ---------------------------------------------------------


def creation_time(config: ImageConfig, epoch: int | None = None) -> int:
    """Return the unix seconds that stand for the image's making.

    Args:
        config: its `created` counts, if it is a date.
        epoch: SOURCE_DATE_EPOCH, where the user set it, goes before.

    Returns:
        0 to 2³² - 1, what squashfs can keep; 0 when nothing is known.
    """
    seconds = epoch
    if seconds is None:
        try:
            date = datetime.fromisoformat((config.created or "").strip().upper())
            seconds = (date.replace(tzinfo=date.tzinfo or UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)
        except (ValueError, OverflowError):  # a date is no reason to refuse an image
            seconds = 0
    return min(max(seconds, 0), _LATEST)


def metadata_tar(config: ImageConfig, *, reference: str, docker_cmd: bool, created: int) -> bytes:
    """Return what the image's config becomes, as an uncompressed tar: the highest layer.

    It has files only, so that a link such as `etc` -> `usr/etc` in the image stays; a link at the
    place of etc/hosts or etc/resolv.conf gives way to an empty file, which engines bind over.

    Args:
        config: the image's config.
        reference: where the image is from, as `docker pull` takes it.
        docker_cmd: the runscript is made of Cmd; see `runscript`.
        created: time of the files, unix seconds; see `creation_time`.

    Raises:
        DocumentError: a config that can't be written down again.
    """
    members = [
        Member(_ENVIRONMENT, 0o755, _bytes(environment_script(config.env))),
        Member(f"{FOLDER}/Singularity", 0o644, _bytes(deffile(reference))),
        Member(f"{FOLDER}/labels.json", 0o644, _json(labels(config, reference, created), indent="\t", sort=True) + b"\n"),
        Member(f"{FOLDER}/runscript", 0o755, _bytes(runscript(config, docker_cmd=docker_cmd))),
        Member("etc/hosts", 0o644, b""),
        Member("etc/resolv.conf", 0o644, b""),
    ]
    return tarball(members, created)


def sif_objects(config: ImageConfig, *, reference: str, docker_cmd: bool, created: int) -> tuple[bytes, dict[str, bytes]]:
    """Return a SIF image's definition file and its JSON documents by name.

    `inspect-metadata.json` is what `inspect` shows without starting the image (§6.9);
    `oci-config.json` is the config's `config` object (§6.10). Arguments as for `metadata_tar`.

    Raises:
        DocumentError: a config that can't be written down again.
    """
    definition = deffile(reference)
    attributes = {
        "environment": {
            f"/{_ENVIRONMENT}": environment_script(config.env).rstrip("\n"),
            f"/{USER_ENVIRONMENT}": USER_ENVIRONMENT_TEXT.rstrip("\n"),
        },
        "labels": labels(config, reference, created),
        "runscript": runscript(config, docker_cmd=docker_cmd).rstrip("\n"),
        "deffile": definition.rstrip("\n"),
        "startscript": STARTSCRIPT.rstrip("\n"),
    }
    documents = {
        "inspect-metadata.json": _json({"data": {"attributes": attributes}, "type": "container"}),
        "oci-config.json": _json(config.config),
    }
    return _bytes(definition), documents


def deffile(reference: str) -> str:
    """Return the definition file that would build the image (sif.md §6)."""
    return f"bootstrap: docker\nfrom: {reference}\n\n"


def environment_script(env: Iterable[str]) -> str:
    """Return env/10-docker2singularity.sh: the config's Env, values literally as they are (§8).

    PATH is set; any other variable only where it is unset or empty, so that engines before 3.6,
    which keep the caller's environment, let it win. Of entries of one name the last counts, as in
    Docker; an entry without `=` passes the caller's value on; a name that is no shell name is left out.
    """
    values: dict[str, str | None] = {}
    for entry in env:
        name, equals, value = entry.partition("=")
        if _NAME.fullmatch(name):
            values[name] = value if equals else None
    lines = ["#!/bin/sh"]
    for name, content in values.items():
        if content is None:
            lines.append(f'{name}="${{{name}:-}}"')
        elif name == "PATH":
            lines.append(f"PATH={_quote(content)}")
        else:
            # Not ${NAME:-'value'}: shells differ on quotes inside such braces.
            lines.append(f'[ -n "${{{name}:-}}" ] || {name}={_quote(content)}')
        lines.append(f"export {name}")
    return "\n".join(lines) + "\n"


def runscript(config: ImageConfig, *, docker_cmd: bool) -> str:
    """Return the runscript: Entrypoint and Cmd, words and arguments exactly as they are (§8).

    | image has                | no arguments     | arguments              |
    |---|---|---|
    | Entrypoint               | entrypoint       | entrypoint + arguments |
    | Cmd                      | cmd              | arguments              |
    | both                     | entrypoint + cmd | entrypoint + arguments |
    | neither                  | /bin/sh          | arguments              |
    | Cmd, with *docker_cmd*   | cmd              | cmd + arguments        |

    Args:
        config: the image's config.
        docker_cmd: Cmd takes Entrypoint's place (SREGISTRY_DOCKER_CMD); without a Cmd, Entrypoint stays.
    """
    entrypoint, cmd = config.entrypoint or (), config.cmd or ()
    if cmd == ("",) and (docker_cmd or not entrypoint):
        cmd = ()  # an argument it may be, a program it is none
    if docker_cmd and cmd:
        entrypoint, cmd = cmd, ()
    if not entrypoint and not cmd:
        cmd = ("/bin/sh",)
    # The `--`: a first word such as -x would be an option of `set`.
    prefix = " ".join(["set --", *map(_quote, entrypoint)])
    lines = ["#!/bin/sh"]
    if cmd:
        lines += ["if [ $# -eq 0 ]; then", "    " + " ".join(["set --", *map(_quote, (*entrypoint, *cmd))])]
        lines += ["else", f'    {prefix} "$@"'] if entrypoint else []
        lines += ["fi"]
    else:
        lines += [f'{prefix} "$@"']
    return "\n".join([*lines, 'exec "$@"', _MAGIC]) + "\n"


def labels(config: ImageConfig, reference: str, created: int) -> dict[str, str]:
    """Return the image's labels and those of the build, which win (§9)."""
    date = datetime.fromtimestamp(created, UTC)
    day = f"{_DAYS[date.weekday()]}_{date.day}_{_MONTHS[date.month - 1]}_{date.year}"
    built = {
        "org.label-schema.schema-version": "1.0",
        "org.label-schema.build-date": f"{day}_{date.hour}:{date.minute}:{date.second}_UTC",
        "org.label-schema.usage.singularity.deffile.bootstrap": "docker",
        "org.label-schema.usage.singularity.deffile.from": reference,
    }
    if config.platform:
        built["org.label-schema.build-arch"] = config.platform.architecture
    return {**config.labels, **built}


def _quote(word: str) -> str:
    """Return *word* as one literal word of any shell.

    The usual `'\\''` is misread by the shell inside Apptainer (§6), and carriage return and line
    feed in one become a line feed there; so the quotes are closed and opened between them.
    """
    return "'" + word.replace("'", "'\"'\"'").replace("\r\n", "\r''\n") + "'"


def _bytes(text: str) -> bytes:
    """Encode; half a character, which no encoding has, becomes U+FFFD, as in Docker."""
    return whole(text).encode()


def _json(value: Mapping[str, object], *, indent: str | None = None, sort: bool = False) -> bytes:
    separators = (",", ":") if indent is None else (",", ": ")
    try:
        return _bytes(json.dumps(value, ensure_ascii=False, indent=indent, separators=separators, sort_keys=sort, allow_nan=False))
    except (RecursionError, ValueError):  # no config that `load_json` has read
        raise DocumentError("config: nested too deeply, or a number that is none") from None


def tarball(members: Iterable[Member], mtime: int) -> bytes:
    """Return an uncompressed tar of *members* in their order, owned by root, all of one time."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path, mode, content in members:
            info = tarfile.TarInfo(path)
            info.mode, info.mtime = mode, mtime
            if content is None:
                info.type = tarfile.DIRTYPE
            elif isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
            else:
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return buffer.getvalue()
