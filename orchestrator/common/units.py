"""Format durations, sizes and counts as text for people, and parse sizes and counts that people write."""

from __future__ import annotations

import re

_UNITS = {"": 1.0, "B": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}
_UNITS |= {"KIB": 2.0**10, "MIB": 2.0**20, "GIB": 2.0**30}
_COUNTS = {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9}
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")


def duration(seconds: float) -> str:
    """Return a duration as ``MINUTES:SECONDS``, or ``HOURS:MINUTES:SECONDS`` from one hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def size(count: float) -> str:
    """Return a number of bytes with a decimal unit: ``512 B``, ``1.9 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if round(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def exact_size(count: float) -> str:
    """Return a number of bytes in the largest decimal unit that keeps all digits, as :func:`parse_bytes` reads it."""
    unit = next((unit for unit in ("TB", "GB", "MB", "kB") if count / _UNITS[unit.upper()] >= 1), "B")
    return f"{count / _UNITS[unit.upper()]:.15g}{unit}"


def number(count: float) -> str:
    """Return a count with a decimal suffix: ``74.0k``, ``22.7M``."""
    for unit in ("", "k", "M", "B"):
        if round(count) < 1000:
            return f"{count:.0f}{unit}" if not unit or count >= 100 else f"{count:.1f}{unit}"
        count /= 1000
    return f"{count:.1f}T"


def parse_bytes(text: str) -> float:
    """Return the bytes of a size such as ``10MB``, ``12 GB`` or ``4096``. 1 MB is 10^6 bytes, 1 MiB 2^20.

    Raises:
        ValueError: if the text is not a size.
    """
    match = _NUMBER.fullmatch(text.strip())
    unit = match.group(2).upper() if match else "?"
    if not match or unit not in _UNITS:
        raise ValueError(f"{text!r} is not a size; write it as in 10MB, 1.5GB or 500kB")
    return float(match.group(1)) * _UNITS[unit]


def parse_bytes_with_unit(text: str) -> float:
    """Return the bytes of a size as :func:`parse_bytes` does, of one that names its unit.

    Raises:
        ValueError: if the text is not a size, or a number alone, by which hardly anybody means bytes.
    """
    count = parse_bytes(text)
    if text.strip().replace(".", "").isdecimal():
        raise ValueError(f"{text!r} has no unit; write {text.strip()}MB, {text.strip()}kB or {text.strip()}B")
    return count


def parse_count(text: str) -> float:
    """Return the number of a count such as ``74k``, ``1.5M`` or ``1,000,000``.

    Raises:
        ValueError: if the text is not a count.
    """
    match = _NUMBER.fullmatch(text.strip().replace(",", ""))
    unit = match.group(2).upper() if match else "?"
    if not match or unit not in _COUNTS:
        raise ValueError(f"{text!r} is not a count; write it as in 50k, 1.5M or 1000000")
    return float(match.group(1)) * _COUNTS[unit]


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, ``1 node`` or ``2 nodes``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
