"""SINGULARITY_DISABLE_CACHE and SREGISTRY_TMPDIR: what is temporary, where it is, and that it is gone afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sregistry.config import temporary
from sregistry.errors import StoreError
from tests.support.place import Place
from tests.support.scripted import Asked, Reply, Scripted
from tests.support.snakemake import ALL, NOTHING, command, inherited


def caches(place: Place, folder: Path | None = None) -> list[str]:
    """Return the names of temporary caches."""
    return sorted(path.name for path in (folder or place.work / "results").glob("*cache-*"))


def without_cache(place: Place, tmpdir: bool) -> Path:
    """Set the variables, and return the folder in which the temporary cache is to be."""
    folder = place.root / "tmp/deep" if tmpdir else place.work / "results"
    place.environ["SINGULARITY_DISABLE_CACHE"] = "yes"
    if tmpdir:
        place.environ["SREGISTRY_TMPDIR"] = str(folder)
    return folder


@pytest.mark.parametrize("tmpdir", [False, True], ids=["in-the-working-folder", "in-tmpdir"])
def test_a_run_without_a_cache(place: Place, tmpdir: bool) -> None:
    folder = without_cache(place, tmpdir)
    plan = place.run("uri=demo/tiny:1", flags=("-n",))
    assert plan.code == 0
    assert not folder.exists()
    done = place.run("uri=demo/tiny:1")
    assert done.code == 0, done.text
    assert sorted(done.rules) == sorted(ALL)
    assert place.names() == ["demo-tiny:1.sif"]
    assert not (place.root / "cache").exists()
    assert folder.is_dir()
    assert caches(place, folder) == []
    assert NOTHING in place.run("uri=demo/tiny:1").text  # the image is there, and needs nothing more
    (place.images / "demo-tiny:1.sif").unlink()
    again = place.run("uri=demo/tiny:1")
    assert sorted(again.rules) == sorted(set(ALL) - {"manifest", "manifests"}), again.text
    assert caches(place, folder) == []


def test_jobs_that_read_the_snakefile_use_the_same_cache(place: Place) -> None:
    """As those of a cluster do: the name follows from what every one of them knows."""
    folder = without_cache(place, tmpdir=True)
    place.run("uri=demo/tiny:1")  # a manifest, pinned
    stem = next(path.parent for path in (place.work / "results").glob("*/manifest.json"))
    (stem / "metadata.json").unlink(missing_ok=True)
    flags = ("--mode", "remote", "--allowed-rules", "metadata", "--target-jobs", f"metadata:image={stem.name}", "--nolock", "--cores", "1")
    seen = []
    for _ in range(2):
        (stem / "metadata.json").unlink(missing_ok=True)
        done = place.run("uri=demo/tiny:1", flags=flags)
        assert done.code == 0, done.text
        seen.append(caches(place, folder))  # a job leaves it, whoever runs all removes it
    assert seen[0] == seen[1]
    assert len(seen[0]) == 1
    assert place.run("uri=demo/tiny:1", flags=("--forcerun", "metadata")).code == 0
    assert caches(place, folder) == []


def test_another_set_of_images_or_folder_has_another_cache(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from sregistry.config.settings import Settings

    names = set()
    for folder in (place.root, place.work):
        monkeypatch.chdir(folder)
        for tmpdir in ("/t", ""):
            settings = Settings.load(environ={"SREGISTRY_TMPDIR": tmpdir})
            names |= {temporary.cache(settings, Path("results"), batch) for batch in ("a", "b")}
    assert len(names) == 8


def test_an_earlier_store_is_kept(place: Place) -> None:
    assert place.run("uri=demo/tiny:1").code == 0
    before = {path: path.read_bytes() for path in (place.root / "cache").rglob("*") if path.is_file()}
    (place.images / "demo-tiny:1.sif").unlink()
    place.asked("blobs")
    assert place.run("uri=demo/tiny:1", SINGULARITY_DISABLE_CACHE="yes").code == 0
    assert len(place.asked("blobs")) == 1  # it was not looked at
    assert {path: path.read_bytes() for path in (place.root / "cache").rglob("*") if path.is_file()} == before
    (place.images / "demo-tiny:1.sif").unlink()
    assert place.run("uri=demo/tiny:1").code == 0
    assert place.asked("blobs") == []


@pytest.mark.parametrize("tmpdir", [False, True], ids=["in-the-working-folder", "in-tmpdir"])
def test_a_run_that_fails(place: Place, tmpdir: bool) -> None:
    folder = without_cache(place, tmpdir)
    done = place.run("uri=[demo/tiny:1,demo/none:1]")
    assert done.code == 1
    assert place.names() == ["demo-tiny:1.sif"]
    assert caches(place, folder) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("tmpdir", [False, True], ids=["in-the-working-folder", "in-tmpdir"])
def test_a_run_that_is_interrupted(place: Place, number: signal.Signals, tmpdir: bool) -> None:
    """While its first job waits for the registry, and another run of the same is refused without harm."""
    folder = without_cache(place, tmpdir)
    with Scripted() as server:

        def hang(_: Asked) -> Reply:
            asked.append(1)
            return Reply(200, b"{}", delay=600)

        asked: list[int] = []
        server.routes["/v2/demo/slow/manifests/1"] = hang
        given = {**inherited(), **place.environ, "SREGISTRY_NVIDIA_BASE": server.host}
        words = command(config=["uri=demo/slow:1"])
        run = subprocess.Popen(words, cwd=place.work, env=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
        until = time.monotonic() + 120
        while not asked and run.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        assert asked
        assert len(caches(place, folder)) == 1
        second = place.run("uri=demo/slow:1", SREGISTRY_NVIDIA_BASE=server.host)
        assert second.code != 0
        assert len(caches(place, folder)) == 1
        os.killpg(run.pid, number)  # as a terminal, or a batch system, does
        run.communicate(timeout=120)
        assert run.returncode != 0
    assert caches(place, folder) == []


def test_what_a_run_that_was_killed_left_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "a/cache"
    path.mkdir(parents=True)
    (path / "old").write_text("old")
    with temporary.temporary(path):
        assert (path / "old").exists()
        (path / "new").write_text("new")
    assert not path.exists()
    with pytest.raises(KeyError), temporary.temporary(path):
        assert path.stat().st_mode & 0o077 == 0
        raise KeyError
    assert not path.exists()


def test_a_folder_that_somebody_else_put_there_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "theirs")
    (tmp_path / "file").write_text("")
    for name in ("link", "file"):
        with pytest.raises(StoreError, match=f"{name} is no folder of yours"), temporary.temporary(tmp_path / name):
            pass
    assert (tmp_path / "theirs").is_dir()


@pytest.mark.needs("root")
def test_another_users_folder_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", 12345, 12345)
    with pytest.raises(StoreError, match="is no folder of yours"), temporary.temporary(tmp_path / "theirs"):
        pass
    assert (tmp_path / "theirs").is_dir()


def test_a_tmpdir_that_cant_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"SREGISTRY_TMPDIR: .*file"):
        temporary.working({"SREGISTRY_TMPDIR": str(tmp_path / "file/x")})


def test_programs_keep_their_last_words_in_tmpdir(tmp_path: Path) -> None:
    """What a builder's program says is collected in a file without a name: its folder tells."""
    folder = tmp_path / "tmp"
    code = "import sys; from sregistry.image import programs; print(programs.run(sys.argv[1:]))"
    seen = f'readlink /proc/self/fd/2 >"{tmp_path}/said"'
    environ = {**os.environ, "SREGISTRY_TMPDIR": str(folder)}
    subprocess.run([sys.executable, "-c", code, "sh", "-c", seen], env=environ, check=True, capture_output=True)
    assert (tmp_path / "said").read_text().startswith(f"{folder}/")


def test_the_node_s_own_folder(tmp_path: Path) -> None:
    """What another node has, or what is no folder, is passed over."""
    job, other = tmp_path / "job", tmp_path / "other"
    job.mkdir()
    other.mkdir()
    assert temporary.node({"SLURM_TMPDIR": str(job), "TMPDIR": str(other)}) == str(job)
    assert temporary.node({"SLURM_TMPDIR": str(tmp_path / "gone"), "TMPDIR": str(other)}) == str(other)
    assert Path(temporary.node({"SLURM_TMPDIR": "relative", "TMPDIR": ""})).is_dir()
