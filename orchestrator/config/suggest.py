"""How to go on after a word that is not known."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches


def did_you_mean(word: str, known: Sequence[str], label: str = "known") -> str:
    """How to go on after an unknown word: the likely one, or all that there are."""
    if close := get_close_matches(word, known, n=1, cutoff=0.6):
        return f"did you mean {close[0]}?"
    return f"{label}: {', '.join(known)}" if known else f"{label}: none"
