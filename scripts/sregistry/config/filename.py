"""The name of an image's file: the template `filename`, and what every name must be.

```
{collection}-{name}:{tag}   nvidia/caffe2:17.10, sif       ─▶ nvidia-caffe2:17.10.sif
                            nim/meta/llama3@sha256:…, simg ─▶ nim-meta-llama3@sha256:….simg
                            host:5000/tiny:1, sandbox      ─▶ tiny:1
```

| field | stands for |
|---|---|
| client | the client, such as nvidia or docker |
| registry | host[:port] |
| collection | the first part of the repository; nothing, if it has only one |
| name | the rest of the repository, its parts joined by ``-`` |
| tag | the tag; of a digest reference the digest, and a ``:`` before it becomes ``@`` |
| architecture | of the platform, with its variant: amd64, arm-v7 |
| format | sif, simg or sandbox |

A field that is empty takes the sign along that joins it to the next one. The format's ending follows, unless the name has it.
"""

from __future__ import annotations

import os
import string
from dataclasses import dataclass
from pathlib import Path

from sregistry.errors import ConfigError
from sregistry.oci.documents import Platform
from sregistry.oci.reference import Reference
from sregistry.system import limits

#: Format → ending of the file's name.
FORMATS = {"sif": ".sif", "simg": ".simg", "sandbox": ""}
#: The name that the original sregistry gives.
DEFAULT = "{collection}-{name}:{tag}"

FIELDS = ("client", "registry", "collection", "name", "tag", "architecture", "format")
_JOINTS = "-_.+:@=~,"
_ADVICE = "choose a shorter one: --name, or name: in the configuration"


@dataclass(frozen=True, slots=True)
class Template:
    """A checked template: pairs of literal text and the field behind it, "" behind the last text."""

    text: str
    parts: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, value: object, blamed: str) -> Template:
        """Read a template. Raises ConfigError that blames the key or variable *blamed*."""
        if not isinstance(value, str):
            raise ConfigError(f"{blamed}: expected text such as {DEFAULT!r}, got {type(value).__name__}")
        try:
            found = [(text, field, spec, conversion) for text, field, spec, conversion in string.Formatter().parse(value)]
        except ValueError as error:
            raise ConfigError(f"{blamed}: {value[:80]!r}: {error}", hint="write each field as {name}") from None
        for _, field, spec, conversion in found:
            if field is not None and (field not in FIELDS or spec or conversion):
                more = (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
                raise ConfigError(f"{blamed}: {{{field[:40]}{more[:40]}}} is unknown", hint=f"fields: {_listed()}")
        parts = tuple((text, field or "") for text, field, _, _ in found)
        text = "".join(literal for literal, _ in parts)
        if "{" in text or "}" in text:
            raise ConfigError(f"{blamed}: {value[:80]!r}: braces are for fields only", hint=f"fields: {_listed()}")
        if not any(field for _, field in parts):
            raise ConfigError(f"{blamed}: {value[:80]!r} has no field, so that all images would be one file", hint=f"fields: {_listed()}")
        if "/" in text or value.startswith((".", "-")) or not text.isprintable() or not _encodes(text):
            raise ConfigError(f"{blamed}: {value[:80]!r} makes no file name", hint="no '/', no control characters, no '.' or '-' in front")
        if len(text.encode()) > limits.NAME:
            raise ConfigError(f"{blamed}: {len(text.encode())} bytes without its fields, and a file name has {limits.NAME} at most")
        return cls(value, parts)

    def __str__(self) -> str:
        return self.text

    def name(self, reference: Reference, *, client: str, platform: Platform | None, format: str) -> str:
        """Return the name of an image's file, with its ending. It is not checked: see `checked`."""
        values = _values(reference, client, platform, format)
        made = ""
        skipped = False
        for literal, field in self.parts:
            text = literal[1:] if skipped and literal[:1] in tuple(_JOINTS) else literal
            skipped = False
            if field == "tag" and reference.digest and text.endswith(":"):
                text = text[:-1] + "@"
            value = values.get(field, "")
            made += text + value
            skipped = bool(field) and not value
        return ended(made.rstrip(_JOINTS) if skipped else made, format)


def ended(name: str, format: str) -> str:
    """Return *name* with the ending of the format, once."""
    ending = FORMATS[format]
    return name if ending and name.endswith(ending) else name + ending


def checked(name: str, folder: Path, blamed: str, written: str = "") -> str:
    """Return *name*, if a file in *folder* may have it: it stays in its folder, shows up in `ls`, and is not too long.

    Args:
        name: with its ending.
        folder: need not be there.
        blamed: what made the name: the key `name`, or the image.
        written: as the user wrote it, if he did.

    Raises:
        ConfigError: it begins with *blamed*.
    """
    if not name or "/" in name or name.startswith((".", "-")) or not name.isprintable() or not _encodes(name):
        hint = "letters, digits and signs, without '/', no '.' or '-' in front"
        raise ConfigError(f"{blamed}: {(written or name)[:80]!r} is no file name", hint=hint)
    size, limit = len(os.fsencode(name)), longest(folder)
    if size > limit:
        raise ConfigError(f"{blamed}: the file name {name[:40]}… has {size} bytes, and {limit} are the limit of a file name", hint=_ADVICE)
    return name


def longest(folder: Path) -> int:
    """Return how many bytes a file's name may have in *folder*, or in what is there of the way to it."""
    for place in (folder, *folder.parents):
        try:
            return min(limits.NAME, os.pathconf(place, "PC_NAME_MAX"))
        except OSError:
            continue
    return limits.NAME


def neighbour(name: str) -> str:
    """Return the beginning of a hidden temporary name beside a file called *name*."""
    return f".{os.fsencode(name)[: limits.NEIGHBOUR_NAME].decode(errors='ignore')}."


def _values(reference: Reference, client: str, platform: Platform | None, format: str) -> dict[str, str]:
    first, slash, rest = reference.repository.partition("/")
    architecture = "" if platform is None else "-".join(part for part in (platform.architecture, platform.variant) if part)
    return {
        "client": client,
        "registry": reference.registry,
        "collection": first if slash else "",
        "name": (rest if slash else first).replace("/", "-"),
        "tag": reference.target,
        "architecture": architecture,
        "format": format,
    }


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _listed() -> str:
    return " ".join(f"{{{field}}}" for field in FIELDS)
