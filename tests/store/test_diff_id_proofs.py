"""Proofs that a blob has a diff_id: names in the store's folder, and nothing that is followed."""

from __future__ import annotations

from pathlib import Path

from sregistry.oci.documents import Digest
from sregistry.store import diff_id_proofs
from sregistry.store.store import Store

BLOB, DIFF, OTHER = (Digest.of(name) for name in (b"blob", b"diff", b"other"))


def test_what_was_found_is_known(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    assert not diff_id_proofs.known(store, BLOB, DIFF)
    for _ in range(2):
        diff_id_proofs.keep(store, BLOB, DIFF)
        assert diff_id_proofs.known(store, BLOB, DIFF)
    assert not diff_id_proofs.known(store, BLOB, OTHER) and not diff_id_proofs.known(store, OTHER, DIFF)
    assert len(list((store.root / "proofs").iterdir())) == 1


def test_a_link_in_the_folder_s_place_is_not_followed(tmp_path: Path) -> None:
    store, aside = Store(tmp_path / "store"), tmp_path / "aside"
    aside.mkdir()
    store.root.mkdir()
    (store.root / "proofs").symlink_to(aside)
    diff_id_proofs.keep(store, BLOB, DIFF)
    assert list(aside.iterdir()) == [] and not diff_id_proofs.known(store, BLOB, DIFF)


def test_a_folder_that_can_t_be_written_is_no_error(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.root.mkdir()
    (store.root / "proofs").write_text("")
    diff_id_proofs.keep(store, BLOB, DIFF)
    assert not diff_id_proofs.known(store, BLOB, DIFF)
