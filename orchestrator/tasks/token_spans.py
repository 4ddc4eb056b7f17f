"""From characters to tokens: which tokens of a text belong to given parts of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from orchestrator.tasks.chat_template import Span

Offsets = NDArray[np.int64]
"""First character of each token, and the one after its last; shape ``(tokens, 2)``."""


def tokens_in(offsets: Offsets, spans: Sequence[Span]) -> NDArray[np.bool_]:
    """Return which tokens hold a character of a span; shape ``(tokens,)``.

    A token across the border of a span belongs to it, since it cannot be generated in parts. One without characters,
    such as the mark of a word's beginning, belongs to the span that it stands in.
    """
    starts, ends = offsets[:, 0], np.maximum(offsets[:, 1], offsets[:, 0] + 1)
    mask = np.zeros(len(offsets), bool)
    for first, stop in spans:
        mask |= (starts < stop) & (ends > first)
    return mask


def last_stretch(trained: NDArray[np.bool_]) -> int:
    """Return where the last tokens that are trained together begin; behind the last token where none are."""
    places = np.flatnonzero(trained)
    if not len(places):
        return len(trained)
    breaks = np.flatnonzero(np.diff(places) > 1)
    return int(places[breaks[-1] + 1] if len(breaks) else places[0])


def kept_tokens(trained: NDArray[np.bool_], max_length: int, opening: int) -> tuple[int, int]:
    """Return which tokens of a row are kept beside its opening: the first, and the one after the last.

    A row that is too long loses its beginning. What stands after the last trained token goes first; only where the last
    stretch of trained tokens alone is too long does it lose its end.

    Args:
        trained: Which tokens are trained.
        max_length: Tokens of a row, at most.
        opening: Tokens at the beginning that stay, such as the one that begins a sequence.
    """
    places, room = np.flatnonzero(trained), max_length - opening
    if len(trained) <= max_length:
        return opening, len(trained)
    if not len(places):
        return max(opening, len(trained) - room), len(trained)
    stop = int(places[-1]) + 1
    # One token before the last stretch stays, since something has to predict its first.
    first = max(opening, min(stop - room, last_stretch(trained) - 1))
    return first, min(stop, first + room)
