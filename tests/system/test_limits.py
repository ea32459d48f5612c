"""Limits: each has a reason, and the documentation has the same table as the module."""

from __future__ import annotations

import re
from pathlib import Path

from sregistry.system import limits

TOP = Path(__file__).resolve().parents[2]
SOURCE = TOP / "scripts/sregistry"


def table() -> list[str]:
    """Return the rows that the module's constants and their comments make."""
    text = Path(limits.__file__).read_text()
    found = re.findall(r"((?:^#: .*\n)+)^([A-Z_]+) = ", text, re.MULTILINE)
    assert [name for _, name in found] == [name for name in vars(limits) if name.isupper()], "each has a comment that begins with its unit"
    rows = []
    for comment, name in found:
        unit, _, reason = " ".join(line.removeprefix("#: ") for line in comment.splitlines()).partition("; ")
        assert reason, f"{name}: unit; reason"
        rows.append(f"| `{name}` | {getattr(limits, name):,} {unit} | {reason} |")
    return rows


def test_the_documentation_has_every_limit() -> None:
    page = (TOP / "config/README.md").read_text()
    section = page.partition("\n## Limits\n")[2].partition("\n## ")[0]
    shown = [line for line in section.splitlines() if line.startswith("| `")]
    assert shown == table(), "the table must be:\n" + "\n".join(table())


def test_every_limit_is_one() -> None:
    """A constant that nothing asks for is no limit."""
    used = "".join(path.read_text() for path in SOURCE.rglob("*.py"))
    assert [name for name in vars(limits) if name.isupper() and f"limits.{name}" not in used] == []
