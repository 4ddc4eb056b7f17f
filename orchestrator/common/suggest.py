"""Hints for a word that is not known: the known word that was probably meant, or all known words."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches


def close_matches(word: str, known: Sequence[str], most: int = 3) -> list[str]:
    """Return the known words that are most like an unknown one, the nearest first.

    Args:
        word: The unknown word.
        known: The words that can be written instead.
        most: The number of words to return at most.
    """
    return get_close_matches(word, known, n=most, cutoff=0.61)


def did_you_mean(word: str, known: Sequence[str], label: str = "known") -> str:
    """Return a hint for an unknown word: the known word that is most like it, or all known words.

    Args:
        word: The unknown word.
        known: The words that can be written instead.
        label: What precedes the list of all words.
    """
    if close := close_matches(word, known, most=1):
        return f"did you mean {close[0]}?"
    return f"{label}: {', '.join(known)}" if known else f"{label}: none"
