"""What configs say: versions, the driver they ask for, labels. The values are like those of NVIDIA's public images."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sregistry.catalog.image_facts import facts, kept, requirement
from sregistry.system import limits

BRANDS = ("tesla", "unknown", "nvidia", "nvidiartx", "geforce", "geforcertx", "quadro", "quadrortx", "titan", "titanrtx")


def branded(*branches: int) -> str:
    return " ".join(f"brand={brand},driver>={branch},driver<{branch + 1}" for branch in branches for brand in BRANDS)


def config(env: list[str], labels: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    return {"architecture": "amd64", "os": "linux", "config": {"Env": env, "Labels": labels or {}}, **more}


PYTORCH = config(
    [
        "PATH=/usr/local/cuda/bin:/usr/bin",
        "CUDA_VERSION=12.3.2.001",
        "CUDA_DRIVER_VERSION=545.23.08",
        f"NVIDIA_REQUIRE_CUDA=cuda>=9.0 {branded(470, 525)}",
        "NVIDIA_DRIVER_CAPABILITIES=compute,utility,video",
        "CUDNN_VERSION=8.9.7.29+cuda12.2",
        "NCCL_VERSION=2.19.4",
        "TRT_VERSION=8.6.1.6+cuda12.0.1.011",
        "PYTORCH_VERSION=2.2.0a0+81ea7a4",
        "NVIDIA_PYTORCH_VERSION=24.01",
        "OPENMPI_VERSION=4.1.5rc2",
        "PYTORCH_BUILD_VERSION=2.2.0a0+81ea7a4",
    ],
    {
        "com.nvidia.cuda.version": "9.0",
        "com.nvidia.cusparse.version": "12.2.0.103",
        "com.nvidia.tensorrtoss.version": "",
        "com.nvidia.volumes.needed": "nvidia_driver",
        "org.opencontainers.image.ref.name": "ubuntu",
        "org.opencontainers.image.version": "22.04",
    },
    created="2024-01-24T03:01:00.123456789Z",
)


def test_a_framework_image() -> None:
    found = facts(PYTORCH, "linux/amd64")
    assert found["versions"] == {
        "cuda": "12.3.2.001",  # not the label's 9.0
        "cuda_driver": "545.23.08",
        "cudnn": "8.9.7.29+cuda12.2",
        "cusparse": "12.2.0.103",
        "nccl": "2.19.4",
        "ngc": "24.01",
        "openmpi": "4.1.5rc2",
        "pytorch": "2.2.0a0+81ea7a4",
        "tensorrt": "8.6.1.6+cuda12.0.1.011",
    }
    assert found["capabilities"] == ["compute", "utility", "video"]
    assert (found["os"], found["architecture"], found["created"]) == ("linux", "amd64", "2024-01-24T03:01:00.123456789Z")
    assert found["image_version"] == "22.04"
    assert found["labels"]["com.nvidia.volumes.needed"] == "nvidia_driver"
    assert found["requires"]["NVIDIA_REQUIRE_CUDA"] == [
        {"cuda": [">=9.0"]},
        {"brand": list(BRANDS), "driver": [">=470", "<471"]},
        {"brand": list(BRANDS), "driver": [">=525", "<526"]},
    ]


@pytest.mark.parametrize(
    ("env", "wanted"),
    [
        pytest.param(
            [f"NVIDIA_REQUIRE_CUDA=cuda>=12.4 {branded(470, 525, 535)}"],
            {"cuda_required": "12.4", "driver": "470", "driver_for_cuda": "550.54.14"},
            id="an older branch will do",
        ),
        pytest.param(
            ["NVIDIA_REQUIRE_CUDA=cuda>=11.0"], {"cuda_required": "11.0", "driver": "450.36.06", "driver_for_cuda": "450.36.06"}, id="CUDA"
        ),
        pytest.param(["NVIDIA_REQUIRE_CUDA=cuda>=99.1"], {"cuda_required": "99.1"}, id="a CUDA that is not known"),
        pytest.param(
            [f"NVIDIA_REQUIRE_CUDA=cuda>=99.1 {branded(535)}"], {"cuda_required": "99.1", "driver": "535"}, id="not known, or a branch"
        ),
        pytest.param(["NVIDIA_REQUIRE_DRIVER=driver>=390"], {"driver": "390"}, id="driver alone"),
        pytest.param(
            ["NVIDIA_REQUIRE_CUDA=cuda>=10.0", "NVIDIA_REQUIRE_DRIVER=driver>=430,driver<440"],
            {"cuda_required": "10.0", "driver": "430", "driver_for_cuda": "410.48"},
            id="both variables must hold",
        ),
        pytest.param(["NVIDIA_REQUIRE_ARCH=arch>=7.0"], {}, id="any driver"),
        pytest.param(["NVIDIA_REQUIRE_CUDA=driver>=450 brand=tesla"], {}, id="any driver of a brand"),
        pytest.param(["NVIDIA_REQUIRE_CUDA=cuda>=12.4", "NVIDIA_DISABLE_REQUIRE=true"], {"not_required": True}, id="switched off"),
        pytest.param(
            ["NVIDIA_REQUIRE_CUDA=cuda>=9.0", "NVIDIA_DISABLE_REQUIRE=no"],
            {"cuda_required": "9.0", "driver": "384.81", "driver_for_cuda": "384.81"},
            id="not switched off",
        ),
        pytest.param(
            ["CUDA_VERSION=9.0.176"],
            {"cuda_required": "9.0", "driver": "384.81", "driver_for_cuda": "384.81"},
            id="from before NVIDIA_REQUIRE",
        ),
        pytest.param(["NVIDIA_REQUIRE_CUDA=cuda=>12"], {}, id="malformed"),
        pytest.param(["PATH=/bin"], {}, id="nothing"),
    ],
)
def test_the_driver(env: list[str], wanted: dict[str, Any]) -> None:
    found = facts(config(env), "linux/amd64")
    assert {name: found[name] for name in ("cuda_required", "driver", "driver_for_cuda", "not_required") if name in found} == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("cuda>=12.4", [{"cuda": [">=12.4"]}]),
        ("  cuda>=9.0,  driver<400 ", [{"cuda": [">=9.0"]}, {"driver": ["<400"]}]),
        ("CUDA!=9.1,arch=7.0", [{"cuda": ["!=9.1"], "arch": ["=7.0"]}]),
        ("brand=tesla,driver>=1 brand=titan,driver>=2", [{"brand": ["tesla"], "driver": [">=1"]}, {"brand": ["titan"], "driver": [">=2"]}]),
        ("brand=tesla,brand=titan brand=tesla", [{"brand": ["=tesla", "=titan"]}, {"brand": ["tesla"]}]),
        ("brand!=tesla brand=tesla brand=titan", [{"brand": ["!=tesla"]}, {"brand": ["tesla", "titan"]}]),
        ("", []),
        (" , ", []),
        ("cuda", None),
        ("cuda>=", None),
        (">=12", None),
        ("cuda=>12", None),
        ("cuda>=12 nonsense", None),
    ],
)
def test_requirements(text: str, wanted: object) -> None:
    assert requirement(text) == wanted


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"config": None},
        {"config": []},
        {"config": {"Env": "A=1", "Labels": ["a"]}},
        {"config": {"Env": [1, None, "", "=", "NVIDIA_REQUIRE_CUDA", "CUDA_VERSION="], "Labels": {"com.nvidia.cuda.version": 9}}},
        {"architecture": 7, "os": None, "created": {}, "config": {"Env": ["CUDA_VERSION=latest"]}},
    ],
)
def test_what_cannot_be_read_is_left_out(document: dict[str, Any]) -> None:
    assert facts(document, "linux/arm64/v8") == {"os": "linux", "architecture": "arm64"}


@pytest.mark.parametrize(
    ("config", "platform", "expected"),
    [
        ({"os": "linux", "architecture": "arm64"}, "linux/amd64", {"architecture": "amd64", "config_platform": "linux/arm64"}),
        ({"architecture": "arm", "variant": "v7"}, "linux/arm64/v8", {"architecture": "arm64", "config_platform": "linux/arm/v7"}),
        ({"os": "Linux", "architecture": "x86_64", "variant": "V3"}, "linux/amd64/v3", {"architecture": "amd64", "variant": "v3"}),
        ({"os": "", "architecture": "aarch64", "variant": None}, "", {"architecture": "arm64"}),
        ({"architecture": "a b"}, "linux/amd64", {"architecture": "amd64"}),
    ],
)
def test_the_image_s_platform_goes_before_the_config_s(config: dict[str, Any], platform: str, expected: dict[str, str]) -> None:
    assert facts(config, platform) == {"os": "linux", **expected}


def test_fields_in_any_case_are_read() -> None:
    assert facts({"config": {"env": ["CUDA_VERSION=9.0"], "labels": {"a": "b"}}}, "") == {
        **facts({"config": {"Env": ["CUDA_VERSION=9.0"], "Labels": {"a": "b"}}}, ""),
    }


def test_the_last_of_a_name_counts() -> None:
    assert facts(config(["CUDA_VERSION=8.0", "CUDA_VERSION=9.0"]), "")["versions"] == {"cuda": "9.0"}


def test_labels_that_are_too_large() -> None:
    labels = {"small": "1", "long": "x" * limits.LABELS, "middle": "y" * 100}
    assert kept(labels) == {"small": "1", "middle": "y" * 100}
    assert kept({"long": "x" * (limits.LABELS - 4)}) == {"long": "x" * (limits.LABELS - 4)}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["CUDA_VERSION", "NVIDIA_REQUIRE_CUDA", "NVIDIA_REQUIRE_X", "NVIDIA_DRIVER_CAPABILITIES", "NCCL_VERSION"])
VALUES = st.text(alphabet="cudriver<>=!,. 0129\t\né", max_size=30)


@given(
    env=st.lists(st.builds("{}={}".format, NAMES, VALUES)) | JSON,
    labels=st.dictionaries(st.sampled_from(["com.nvidia.x.version", "a"]), VALUES | JSON) | JSON,
    more=st.dictionaries(st.sampled_from(["os", "architecture", "created"]), JSON),
    platform=st.text(max_size=10),
)
def test_no_input_is_an_error(env: object, labels: object, more: dict[str, Any], platform: str) -> None:
    found = facts({**more, "config": {"Env": env, "Labels": labels}}, platform)
    assert json.loads(json.dumps(found)) == found
