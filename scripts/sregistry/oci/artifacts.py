"""What registries hold beside images: told by type, and refused by name.

```
artifactType ┐
config type  ├─▶ KNOWN ─▶ what it is, what to do
layer types  ┤
annotations  ┘
```

The rows are read from above; a type that none of them knows is for the caller to judge.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Refusal(NamedTuple):
    """A pattern of media types, or of names of annotations; what it stands for; and what to do instead.

    `image` tells that it is an image all the same, of a kind that can't be made here.
    """

    pattern: str
    what: str
    hint: str
    image: bool = False


KNOWN = (
    Refusal(r".*\+encrypted(\+.*)?", "encrypted", "decrypt the image first: skopeo copy --decryption-key KEY …", image=True),
    # oci-to-sif.md §16: RAFS blobs are no tar streams; the bootstrap layer of a converted image has an ordinary type.
    Refusal(
        r"(application/.*nydus.*|containerd\.io/snapshot/nydus-.*)",
        "a nydus (RAFS) image's, which is no tar stream",
        "name the tag of the ordinary image that it was converted from",
        image=True,
    ),
    Refusal(r"application/vnd\.cncf\.helm\..*", "a Helm chart", "name one of the images that the chart deploys"),
    Refusal(
        r"application/vnd\.dev\.(cosign|sigstore)\..*", "a cosign signature", "name the image that it signs: its tag without sha256-….sig"
    ),
    Refusal(
        r"application/(vnd\.in-toto.*|vnd\.dsse\.envelope.*|vnd\.cncf\.notary\..*)",
        "an attestation (in-toto, DSSE or Notary)",
        "name the image that it is about",
    ),
    Refusal(r"(application|text)/(vnd\.)?(spdx|cyclonedx|syft)\b.*", "an SBOM", "name the image that it is about"),
    Refusal(
        r"application/(wasm|vnd\.(wasm|module\.wasm|bytecodealliance|wasmcloud)\b.*)",
        "a WebAssembly module",
        "run it by a WebAssembly runtime; Singularity can't",
    ),
    Refusal(r"application/vnd\.amazon\.soci\..*", "a SOCI index", "name the image that it belongs to"),
    Refusal(r"application/vnd\.docker\.plugin\..*", "a Docker plugin", "install it by docker plugin install; it is no container"),
    Refusal(
        r"application/vnd\.(ollama\.|docker\.ai\.|cncf\.model\.|kitops\.).*",
        "a model's weights",
        "pull it by the tool that pushed it",
    ),
    Refusal(
        r"appli(c|ci)ation/vnd\.sylabs\..*",
        "a SIF artifact of more or less than one SIF",
        "push the SIF alone: apptainer push IMAGE oras://…",
    ),
    Refusal(r"application/vnd\.oci\.artifact\.manifest\..*", "an OCI artifact without an image", "name an image"),
)


def find(kind: str) -> Refusal | None:
    """Return what the media type or annotation *kind* is known to stand for, None if it may be an image's."""
    return next((row for row in KNOWN if re.fullmatch(row.pattern, kind)), None)
