"""What a person gets to see: text from elsewhere, without anything that a terminal obeys.

Tags, labels, names in layers and words of a registry may hold escape sequences, which move the cursor, recolour the screen or type for
the user, and signs of writing direction, which make a text look like another. Whatever is shown goes through `printable`: errors,
log lines, tables, bars. JSON has escapes of its own.
"""

from __future__ import annotations

import sys


def printable(text: str) -> str:
    r"""Return *text* in one line, with what is not printable as ``\x1b``, ``\u202e`` or ``\U000e0001``.

    Not printable is what Unicode has as control (C0, C1), format (bidi), separator other than a blank, surrogate, private or
    unassigned (`str.isprintable`). What was made printable before stays as it is.
    """
    return text if text.isprintable() else "".join(sign if sign.isprintable() else _escaped(ord(sign)) for sign in text)


def result(text: str) -> str:
    """Return a result for stdout: as it is, because a program may read it, unless a person does."""
    return printable(text) if sys.stdout.isatty() else text


def _escaped(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
