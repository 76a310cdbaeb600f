"""Decoding of the text of data files, which is UTF-8."""

from __future__ import annotations


def decoded(raw: bytes, *, first: bool) -> str:
    """Decode a line; the first may start with a byte order mark."""
    return raw.decode("utf-8-sig" if first else "utf-8")


def not_utf8(raw: bytes, error: UnicodeDecodeError) -> str:
    """Return the message for text that is not UTF-8."""
    return f"not UTF-8 text (byte 0x{raw[error.start]:02x}); save the file as UTF-8"
