"""Tags of words and the entities that they mark: where an entity begins and ends, and how many were found.

The rules are those of seqeval's default mode: a word with ``B-X`` or ``S-X`` begins an entity, one with ``I-X`` or
``E-X`` continues the entity before it if that is of the same kind and has not ended, and begins one otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

OUTSIDE = "O"
NO_TAG = -1
"""The tag of a word that the model has no prediction for."""
_PREFIXED = re.compile(r"([BIES])-(.+)", re.DOTALL)
_WORD = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff]"
    r"|[^\W\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff]+"
    r"|[^\w\s]"
)
"""A character of a script that is written without spaces, a run of letters and digits, or any other character."""

Integers = NDArray[np.int64]


def word_spans(text: str) -> list[tuple[int, int]]:
    """Return the start and the end of each word of a text, the same for every tokenizer."""
    return [match.span() for match in _WORD.finditer(text)]


@dataclass(frozen=True)
class Entities:
    """Entities in rows of words that follow each other in one array.

    Args:
        first: Index of each entity's first word, ascending.
        last: Index of its last word.
        kind: Its kind, as an index into :attr:`TagScheme.kinds`.
    """

    first: Integers
    last: Integers
    kind: Integers

    def matching(self, others: Entities) -> Integers:
        """Return the first words of the entities that are among others, with the same words and the same kind."""
        first, mine, theirs = np.intersect1d(self.first, others.first, assume_unique=True, return_indices=True)
        is_equal = (self.last[mine] == others.last[theirs]) & (self.kind[mine] == others.kind[theirs])
        matching: Integers = first[is_equal]
        return matching


@dataclass(frozen=True)
class TagScheme:
    """What tags mean: ``B-X``, ``I-X``, ``E-X`` and ``S-X`` if all tags but ``O`` have such a form, else plain kinds.

    Neighbours with the same plain tag are one entity.

    Args:
        tags: Names of the tags in the order of their integers.
    """

    tags: tuple[str, ...]

    @cached_property
    def is_plain(self) -> bool:
        """Whether tags are kinds without a prefix."""
        return not all(tag == OUTSIDE or _PREFIXED.fullmatch(tag) for tag in self.tags)

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of entities, in alphabetical order."""
        return tuple(sorted({kind for _, kind in self._parts if kind}))

    def entities(self, tags: Integers, offsets: Integers) -> Entities:
        """Return the entities that tags mark.

        Args:
            tags: Tags of all rows' words, :data:`NO_TAG` for a word without one; shape ``(words,)``.
            offsets: Where each row begins and the last one ends, shape ``(rows + 1,)``.
        """
        kinds, are_begins, are_ends = self._tables
        kind, begins, ends = kinds[tags], are_begins[tags], are_ends[tags]
        is_first_of_row = np.zeros(len(tags) + 1, bool)
        is_first_of_row[offsets] = True
        after = np.concatenate([[True], (kind[1:] != kind[:-1]) | ends[:-1]])[: len(tags)] | is_first_of_row[:-1]
        is_first = (kind >= 0) & (begins | after)
        is_last = (kind >= 0) & np.concatenate([is_first[1:] | (kind[1:] < 0), [True]])[: len(tags)]
        is_last |= (kind >= 0) & is_first_of_row[1:]
        first = np.flatnonzero(is_first)
        return Entities(first, np.flatnonzero(is_last), kind[first])

    def continuing(self, tags: Integers) -> Integers:
        """Return tags in which those that begin an entity continue it, where there is such a tag."""
        return self._continuing[tags]

    @cached_property
    def _parts(self) -> list[tuple[str, str]]:
        """Prefix and kind of each tag; no kind outside entities."""
        matches = [None if self.is_plain else _PREFIXED.fullmatch(tag) for tag in self.tags]
        plain = [("", "") if tag == OUTSIDE else ("I", tag) for tag in self.tags]
        return [(match[1], match[2]) if match else part for match, part in zip(matches, plain, strict=True)]

    @cached_property
    def _tables(self) -> tuple[Integers, NDArray[np.bool_], NDArray[np.bool_]]:
        """Kind of each tag (-1 outside), whether it begins and whether it ends an entity; the last is NO_TAG's."""
        parts = [*self._parts, ("", "")]
        kind = np.array([self.kinds.index(kind) if kind else -1 for _, kind in parts], np.int64)
        begins, ends = (
            np.array([prefix and prefix in letters for prefix, _ in parts], bool) for letters in ("BS", "ES")
        )
        return kind, begins, ends

    @cached_property
    def _continuing(self) -> Integers:
        same = range(len(self.tags))
        inside = {kind: tag for tag, (prefix, kind) in zip(same, self._parts, strict=True) if prefix == "I"}
        return np.array([*(inside.get(kind, tag) for tag, (_, kind) in zip(same, self._parts, strict=True)), NO_TAG])


def first_tokens(offsets: Sequence[tuple[int, int]], words: Sequence[tuple[int, int]]) -> Integers:
    """Return the position of the first token of each word, or -1 for a word without one.

    Args:
        offsets: First character of each token, and the one after its last; equal for special tokens.
        words: First character of each word, and the one after its last; ascending.
    """
    first, after = np.array(offsets, np.int64).reshape(-1, 2).T
    starts, ends = np.array(words, np.int64).reshape(-1, 2).T
    places = np.flatnonzero(after > first)
    # The first token that reaches into a word. A byte-level token may have the space before the word as well.
    nearest = np.searchsorted(after[places], starts, side="right")
    begins = np.append(first[places], np.iinfo(np.int64).max)[nearest]
    positions: Integers = np.where(begins < ends, np.append(places, -1)[nearest], -1)
    return positions


def row_counts(words: Integers, offsets: Integers) -> Integers:
    """Return how many of some words are in each row.

    Args:
        words: Indices of words.
        offsets: Where each row begins and the last one ends, shape ``(rows + 1,)``.
    """
    rows = np.searchsorted(offsets, words, side="right") - 1
    return np.bincount(rows, minlength=len(offsets) - 1).astype(np.int64)


def span_tags(
    words: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int, str]], text: str
) -> tuple[list[str], str]:
    """Return a tag for each word of a text, and what is wrong with a span; empty if nothing is.

    Args:
        words: Start and end of each word.
        spans: Start, end and label of each entity.
        text: The text.
    """
    tags = [OUTSIDE] * len(words)
    for start, end, label in spans:
        if not 0 <= start < end <= len(text):
            return tags, f"span {start}..{end} is not inside the text, which has {len(text):,} characters"
        inside = [index for index, (first, last) in enumerate(words) if first < end and last > start]
        if not inside:
            return tags, f"span {start}..{end} holds white space alone"
        if words[inside[0]][0] < start or words[inside[-1]][1] > end:
            index = inside[0] if words[inside[0]][0] < start else inside[-1]
            word = text[slice(*words[index])]
            return tags, f"span {start}..{end} ({text[start:end]!r}) begins or ends inside the word {word!r}"
        if any(tags[index] != OUTSIDE for index in inside):
            return tags, f"span {start}..{end} ({text[start:end]!r}) overlaps another"
        tags[inside[0]] = f"B-{label}"
        for index in inside[1:]:
            tags[index] = f"I-{label}"
    return tags, ""
