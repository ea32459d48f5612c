"""What an image's config says of itself: platform, versions, the driver it asks for, labels.

```
Env     CUDA_VERSION, PYTORCH_VERSION …  ─▶ versions {"cuda": "12.4.1", "pytorch": "2.3.0a0+ebedce2" …}
        NVIDIA_REQUIRE_*                 ─▶ requires, cuda_required, driver, driver_for_cuda
        NVIDIA_DRIVER_CAPABILITIES       ─▶ capabilities
Labels  com.nvidia.<name>.version        ─▶ versions, where Env says nothing
        all                              ─▶ labels
```

Env goes first: the variables are those of the image, while a label may be that of a layer far below
(NGC's own images of CUDA 12 and 13 still carry `com.nvidia.cuda.version=9.0`). All values are JSON;
what can't be read is left out, and no input is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from sregistry.oci.json_fields import any_case
from sregistry.oci.platforms import Platform
from sregistry.oci.versions import numbers
from sregistry.system import limits

#: Version → the variables that hold it, as NVIDIA's images and those of the frameworks have them.
VERSIONS: dict[str, tuple[str, ...]] = {
    "cuda": ("CUDA_VERSION",),
    "cuda_driver": ("CUDA_DRIVER_VERSION",),
    "cudnn": ("CUDNN_VERSION", "NV_CUDNN_VERSION"),
    "cublas": ("CUBLAS_VERSION", "NV_LIBCUBLAS_VERSION"),
    "nccl": ("NCCL_VERSION", "NV_LIBNCCL_PACKAGE_VERSION"),
    "tensorrt": ("TRT_VERSION", "TENSORRT_VERSION"),
    "dali": ("DALI_VERSION",),
    "pytorch": ("PYTORCH_VERSION",),
    "tensorflow": ("TENSORFLOW_VERSION",),
    "mxnet": ("MXNET_VERSION",),
    "jax": ("JAX_VERSION",),
    "caffe2": ("CAFFE2_VERSION",),
    "triton": ("TRITON_SERVER_VERSION",),
    "openmpi": ("OPENMPI_VERSION", "OMPI_VERSION"),
    "ucx": ("OPENUCX_VERSION", "UCX_VERSION"),
    "hpcx": ("HPCX_VERSION",),
    "python": ("PYTHON_VERSION",),
    # NGC's monthly release, such as 24.01; the framework's own version is above.
    "ngc": (
        "NVIDIA_PYTORCH_VERSION",
        "NVIDIA_TENSORFLOW_VERSION",
        "NVIDIA_TENSORRT_VERSION",
        "NVIDIA_TRITON_SERVER_VERSION",
        "NVIDIA_MXNET_VERSION",
        "NVIDIA_JAX_VERSION",
        "NVIDIA_CAFFE2_VERSION",
    ),
}

#: Fact → the label that holds it (image-spec, annotations.md).
_TEXTS = {"title": "org.opencontainers.image.title", "image_version": "org.opencontainers.image.version"}

_VERSION_LABEL = re.compile(r"com\.nvidia\.([a-z0-9_.-]+)\.version")
_VERSION = re.compile(r"v?(\d[\w.+~-]{0,99})", re.ASCII)

#: First driver for Linux that brings each CUDA (CUDA Toolkit release notes, "CUDA Toolkit and Corresponding Driver Versions").
_DRIVERS = {
    (7, 0): "346.46",
    (7, 5): "352.31",
    (8, 0): "367.48",
    (9, 0): "384.81",
    (9, 1): "390.46",
    (9, 2): "396.26",
    (10, 0): "410.48",
    (10, 1): "418.39",
    (10, 2): "440.33",
    (11, 0): "450.36.06",
    (11, 1): "455.23",
    (11, 2): "460.27.03",
    (11, 3): "465.19.01",
    (11, 4): "470.42.01",
    (11, 5): "495.29.05",
    (11, 6): "510.39.01",
    (11, 7): "515.43.04",
    (11, 8): "520.61.05",
    (12, 0): "525.60.13",
    (12, 1): "530.30.02",
    (12, 2): "535.54.03",
    (12, 3): "545.23.06",
    (12, 4): "550.54.14",
    (12, 5): "555.42.02",
    (12, 6): "560.28.03",
    (12, 8): "570.26",
    (12, 9): "575.51.03",
    (13, 0): "580.65.06",
}

_REQUIRE, _NOT_REQUIRED = "NVIDIA_REQUIRE_", "NVIDIA_DISABLE_REQUIRE"
#: What Go's ParseBool, which reads that switch, takes for on.
_ON = ("1", "t", "T", "TRUE", "true", "True")
_CONDITION = re.compile(r"([^<>=!,\s]+)(<=|>=|!=|<|>|=)([^<>=!,\s]+)")


#: A way to satisfy a requirement: name → conditions such as `>=470`, all of which must hold. Brands without a
#: sign are names, of which one must hold.
Alternative = dict[str, list[str]]


def facts(config: Mapping[str, Any], platform: str) -> dict[str, Any]:
    """Return what an image config document says.

    Args:
        config: the document (image-spec, config.md), as published.
        platform: os/architecture[/variant] of the image, which goes before what the config says; "" where it is not known.
    """
    inner = _table(config.get("config"))
    env, labels = _environment(any_case(inner, "Env")), _labels(any_case(inner, "Labels"))
    os, architecture, *_ = [*platform.split("/"), "", ""]
    own = _platform(config)
    other = own is not None and architecture != "" and (own.os, own.architecture) != (os, architecture)
    versions = _versions(env, labels)
    found: dict[str, Any] = {
        "os": os or (own.os if own else _text(config.get("os"))),
        "architecture": architecture or (own.architecture if own else ""),
        "variant": own.variant if own and not other else None,
        # That of an image whose index says another one.
        "config_platform": str(own) if other else None,
        "created": _text(config.get("created")),
        **{name: labels.get(label, "") for name, label in _TEXTS.items()},
        "versions": versions,
        "capabilities": [word for word in re.split(r"[,\s]+", env.get("NVIDIA_DRIVER_CAPABILITIES", "")) if word],
        **_driver(env, versions.get("cuda", "")),
        "labels": kept(labels),
    }
    return {name: value for name, value in found.items() if value not in ("", None, [], {})}


def _platform(config: Mapping[str, Any]) -> Platform | None:
    """Return what the config says that it is for, None where it says nothing that can be read."""
    try:
        found = Platform.of(_text(config.get("os")), _text(config.get("architecture")), _text(config.get("variant")))
    except ValueError:
        return None
    return found


def requirement(text: str) -> list[Alternative] | None:
    """Read a value of NVIDIA_REQUIRE_*, None if it is malformed.

    libnvidia-container's grammar: alternatives with blanks between; in each, conditions with commas between, all of
    which must hold; a condition is name, one of = != < <= > >=, and value. Alternatives that differ in nothing
    but the brand are returned as one.
    """
    found: list[Alternative] = []
    for words in text.split():
        alternative: Alternative = {}
        for word in filter(None, words.split(",")):
            match = _CONDITION.fullmatch(word)
            if match is None:
                return None
            alternative.setdefault(match[1].lower(), []).append(match[2] + match[3])
        if not alternative:
            continue
        brands = alternative.get("brand", [])
        if len(brands) != 1 or not brands[0].startswith("="):
            found.append(alternative)
            continue
        alternative["brand"] = [brands[0][1:]]
        same = next((other for other in found if {**other, "brand": alternative["brand"]} == alternative and _named(other)), None)
        if same is None:
            found.append(alternative)
        else:
            same["brand"] += alternative["brand"]
    return found


def _named(alternative: Alternative) -> bool:
    """Whether its brands are names, of which one must hold, and not conditions that all must."""
    return all(brand[0] not in "=!<>" for brand in alternative.get("brand", ["="]))


def driver_of(cuda: tuple[int, ...]) -> str:
    """Return the first driver that brings this CUDA version, "" where that is not known."""
    major, minor = (*cuda, 0, 0)[:2]
    return _DRIVERS.get((major, minor), "")


def kept(labels: Mapping[str, str]) -> dict[str, str]:
    """Return the labels, without the longest values where all would be more than limits.LABELS bytes."""
    sizes = {name: len(name.encode(errors="replace")) + len(value.encode(errors="replace")) for name, value in labels.items()}
    total, left = sum(sizes.values()), dict(labels)
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        if total <= limits.LABELS:
            break
        total -= sizes[name]
        del left[name]
    return left


def _versions(env: Mapping[str, str], labels: Mapping[str, str]) -> dict[str, str]:
    found = {match[1]: value for name, value in labels.items() if (match := _VERSION_LABEL.fullmatch(name))}
    for name, variables in VERSIONS.items():
        value = next((env[variable] for variable in variables if env.get(variable)), None)
        if value is not None:
            found[name] = value
    return {name: match[1] for name, value in sorted(found.items()) if (match := _VERSION.fullmatch(value.strip()))}


def _driver(env: Mapping[str, str], cuda: str) -> dict[str, Any]:
    """What is required of the driver, and the least that can satisfy it."""
    if env.get(_NOT_REQUIRED) in _ON:
        return {"requires": {}, "not_required": True}
    read = {name: requirement(value) for name, value in sorted(env.items()) if name.startswith(_REQUIRE)}
    requires = {name: alternatives for name, alternatives in read.items() if alternatives}
    wanted = requires
    if "NVIDIA_REQUIRE_CUDA" not in env and len(numbers(cuda)) >= 2:
        # What the NVIDIA Container Toolkit asks for an image from before these variables.
        major, minor = numbers(cuda)[:2]
        wanted = {**requires, "NVIDIA_REQUIRE_CUDA": [{"cuda": [f">={major}.{minor}"]}]}
    all_cuda = [_least(a.get("cuda", ())) for alternatives in wanted.values() for a in alternatives]
    needed = min(filter(None, all_cuda), key=numbers, default="")
    # Each variable must be satisfied, by one of its alternatives.
    drivers = [min(bounds, key=numbers) for bounds in (_bounds(alternatives) for alternatives in wanted.values()) if bounds]
    return {
        "requires": requires,
        "cuda_required": needed,
        "driver": max(drivers, key=numbers, default=""),
        "driver_for_cuda": driver_of(numbers(needed)),
    }


def _bounds(alternatives: Iterable[Alternative]) -> list[str]:
    """Return the least drivers of the alternatives; none if one of them takes any driver.

    A CUDA version that is not in the table is newer than what other alternatives ask for: it is passed over.
    """
    found = []
    for alternative in alternatives:
        driver, cuda = _least(alternative.get("driver", ())), _least(alternative.get("cuda", ()))
        if not driver and not cuda:
            return []
        found.append(max(driver, driver_of(numbers(cuda)), key=numbers))
    return [bound for bound in found if bound]


def _least(conditions: Iterable[str]) -> str:
    """Return the highest lower bound among conditions such as `>=470`, "" if there is none."""
    bounds = [c.lstrip("<>=!") for c in conditions if c.startswith((">", "="))]
    return max((bound for bound in bounds if numbers(bound)), key=numbers, default="")


def _environment(entries: object) -> dict[str, str]:
    """Read Env; of a name that stands there twice, the last counts."""
    words = [entry for entry in entries if isinstance(entry, str)] if isinstance(entries, (list, tuple)) else []
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def _labels(value: object) -> dict[str, str]:
    return {name: text for name, text in _table(value).items() if isinstance(text, str)}


def _table(value: object) -> Mapping[str, Any]:
    return {name: item for name, item in value.items() if isinstance(name, str)} if isinstance(value, Mapping) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
