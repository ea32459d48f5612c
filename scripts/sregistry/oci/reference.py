"""What a user calls an image, as a frozen Reference.

```
[scheme://][registry/]repository[:tag][@digest | @version]
           └ host[:port]  └ collection/…/name
```

Grammar: OCI distribution-spec 1.1, "Pulling manifests" (names and tags), and the docker/distribution
reference grammar for the host. Repositories are lower case; tags are case sensitive; a digest wins
over a tag. `@version` names one build of a recorded image by the hash of its file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sregistry.errors import InvalidReference
from sregistry.oci.documents import Digest

DEFAULT_TAG = "latest"

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_LONGEST = 255
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_VERSION = re.compile(r"[0-9a-f]{32}|[0-9a-f]{64}")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]{{1,5}})?")
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)")


def split_scheme(text: str) -> tuple[str | None, str]:
    """Split ``docker://ubuntu`` into its scheme and the rest; no scheme gives None."""
    match = _SCHEME.fullmatch(text.strip())
    return (match[1], match[2]) if match else (None, text.strip())


def is_tag(text: str) -> bool:
    """Tell whether *text* is a tag by the grammar."""
    return _TAG.fullmatch(text) is not None


def is_host(text: str) -> bool:
    """Tell whether *text* is host[:port], as a reference has it."""
    try:
        return "/" not in text and Reference.parse(f"{text}/a/b", registry=text, collection="").registry == text
    except InvalidReference:
        return False


def is_repository(text: str) -> bool:
    """Tell whether *text* is the name of a repository by the grammar."""
    return len(text) <= _LONGEST and _REPOSITORY.fullmatch(text) is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """One image in one registry. `tag` is None only when a digest was given without a tag."""

    registry: str
    repository: str
    tag: str | None
    digest: Digest | None = None
    version: str | None = None

    @classmethod
    def parse(cls, text: str, *, registry: str, collection: str) -> Reference:
        """Read a reference without its scheme.

        Args:
            text: such as ``nvidia/caffe2:17.10``.
            registry: host[:port] when the text names none.
            collection: first component of a repository of *registry* that has only one.

        Raises:
            InvalidReference: the text breaks the grammar; the message says where.
        """
        rest = text.strip()
        rest, at, suffix = rest.partition("@")
        digest, version = None, None
        if at:
            if _DIGEST.fullmatch(suffix):
                digest = Digest(suffix)
            elif _VERSION.fullmatch(suffix):
                version = suffix
            else:
                raise InvalidReference(f"{text!r}: {suffix!r} is no digest", hint="write name@sha256: and 64 hexadecimal digits")
        head, slash, tail = rest.partition("/")
        host = registry
        if slash and (head == registry or _is_host(head)):
            if not _HOST.fullmatch(head):
                raise InvalidReference(f"{text!r}: {head!r} is no registry host")
            host, rest = head, tail
        path, colon, tag = rest.rpartition(":")
        if not colon:
            path, tag = rest, ""
        if colon and not _TAG.fullmatch(tag):
            raise InvalidReference(f"{text!r}: {tag!r} is no tag", hint="a tag has up to 128 letters, digits, '.', '_' and '-'")
        if not path:
            raise InvalidReference(f"{text!r} names no image", hint="write one such as nvidia/caffe2:17.10")
        if not _REPOSITORY.fullmatch(path):
            hint = "repositories are lower case" if path != path.lower() else "write one such as nvidia/caffe2:17.10"
            raise InvalidReference(f"{text!r}: {path!r} is no repository name", hint=hint)
        repository = path if "/" in path or not collection or host != registry else f"{collection}/{path}"
        if len(repository) > _LONGEST:
            raise InvalidReference(f"{text!r}: a repository name has at most {_LONGEST} characters")
        return cls(registry=host, repository=repository, tag=tag or (None if digest else DEFAULT_TAG), digest=digest, version=version)

    @property
    def collection(self) -> str:
        """First component of the repository."""
        return self.repository.partition("/")[0]

    @property
    def name(self) -> str:
        """The repository without its collection."""
        return self.repository.partition("/")[2]

    @property
    def target(self) -> str:
        """What to ask the registry for: the digest, else the tag."""
        return str(self.digest) if self.digest else (self.tag or DEFAULT_TAG)

    @property
    def uri(self) -> str:
        """``collection/name:tag``, or ``collection/name@digest``; without registry and version."""
        return f"{self.repository}@{self.digest}" if self.digest else f"{self.repository}:{self.tag}"

    def __str__(self) -> str:
        return f"{self.registry}/{self.uri}"


def _is_host(component: str) -> bool:
    """A first component is a host when it could be no repository (docker/distribution's rule)."""
    return "." in component or ":" in component or component == "localhost"
