"""What rows look like: a task type and its keys, recognized from the names of columns and what they hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

Look = Literal["text", "code", "integer", "number", "texts", "objects", "object", "time", "nothing"]
"""What a column's first rows hold: texts of words, short codes (also true and false), numbers, or lists."""


@dataclass(frozen=True)
class Layout:
    """What rows look like.

    Args:
        type: Task type.
        keys: Columns by the type's key.
        name: The layout's name: ``Alpaca``.
        instead: What else the rows can be, as a question that names keys to write; empty if nothing else.
    """

    type: str
    keys: Mapping[str, str]
    name: str
    instead: str = ""

    @property
    def reason(self) -> str:
        """Return the layout and its columns: ``rows look like Alpaca: instruction, input, output``."""
        return f"rows look like {self.name}: {', '.join(self.keys.values())}"


@dataclass(frozen=True)
class _Role:
    """Names that columns of one meaning have, the surest first, and what such a column holds."""

    names: tuple[str, ...]
    looks: tuple[Look, ...]


_NUMBERS: tuple[Look, ...] = ("integer", "number")
_TEXTS: tuple[Look, ...] = ("text", "code")
_LABELS: tuple[Look, ...] = ("text", "code", "integer")
_LISTS: tuple[Look, ...] = ("texts",)
_CHATS: tuple[Look, ...] = ("objects",)
_ROLES = {
    "messages": _Role(("messages", "chat", "dialog"), _CHATS),
    "conversations": _Role(("conversations", "conversation"), _CHATS),
    "tokens": _Role(("tokens", "words"), _LISTS),
    "tags": _Role(("tags", "ner_tags", "labels", "ner", "pos_tags", "upos", "chunk_tags"), _LISTS),
    "spans": _Role(("spans", "entities"), _CHATS),
    "instruction": _Role(("instruction", "instructions"), _TEXTS),
    "input": _Role(("input", "context"), (*_TEXTS, "nothing")),
    "output": _Role(("output", "response", "answer"), _LABELS),
    "prompt": _Role(("prompt", "question", "query"), _TEXTS),
    "completion": _Role(("completion", "response", "answer", "output"), (*_LABELS, "number")),
    "choices": _Role(("choices", "options", "endings"), _LISTS),
    "anchor": _Role(("anchor", "query", "question"), _TEXTS),
    "positive": _Role(("positive", "pos", "passage", "document"), _TEXTS),
    "negative": _Role(("negative", "neg", "hard_negative"), _TEXTS),
    "source": _Role(
        ("source", "src", "article", "document", "dialogue", "meaning_representation", "mr", "text"), _TEXTS
    ),
    "target": _Role(("target", "tgt", "highlights", "summary", "human_reference", "ref", "reference"), _TEXTS),
    "text": _Role(
        ("text", "sentence", "content", "body", "review", "comment", "tweet", "message", "utterance"), _TEXTS
    ),
    "number": _Role(("target", "score", "rating", "stars", "value", "similarity", "label"), _NUMBERS),
    "label": _Role(
        ("label", "class", "category", "sentiment", "intent", "topic", "emotion", "target", "labels"), _LABELS
    ),
    "labels": _Role(("labels", "label", "categories", "topics", "tags"), _LISTS),
}
_OR_EMBEDDING = "write type: embedding, with anchor, positive and score, to train an embedding model on them"
_OR_CLASSES = "write type: classification, with text and label, if each number is a class of its own"
_OR_DECODER = "write type: causal-lm, with prompt and completion, for a model that only decodes"
_PAIRS = (
    ("text", "text_pair"),
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("sentence_a", "sentence_b"),
    ("question", "sentence"),
)


def recognize(columns: Mapping[str, Look], type_: str = "") -> Layout | None:
    """Return what rows look like.

    Args:
        columns: What each column holds, by name.
        type_: Task type that is asked for; any if empty.

    Returns:
        The layout; ``None`` if there is none. One whose ``instead`` is not empty is a guess.
    """
    layouts = [layout for layout in _layouts(columns) if layout and type_ in ("", layout.type)]
    if not layouts:
        return None
    is_answered = type_ and layouts[0].instead.startswith("write type")
    return replace(layouts[0], instead="") if is_answered else layouts[0]


def unknown(columns: Sequence[str]) -> str:
    """Return the question for rows that look like nothing known."""
    example = "write type and its keys, as in type: classification, text and label"
    return f"the columns {', '.join(columns)} are of no known layout; {example}"


def _layouts(columns: Mapping[str, Look]) -> list[Layout | None]:
    """Return the layouts that columns can be, the surest first."""

    def layout(type_: str, name: str, keys: Mapping[str, str], instead: str = "") -> Layout | None:
        return Layout(type_, keys, name, instead) if keys else None

    def find(*roles: str, optional: str = "") -> dict[str, str]:
        return _find(columns, roles, optional)

    pair, number, label = _pair(columns), find("number"), find("label")
    if number and columns[number["number"]] == "integer" and number["number"] == label.get("label"):
        number = {}  # whole numbers in a column called label are classes
    if label.get("label", "").lower() == "target" and columns[label["label"]] == "text":
        label = {}  # sentences are to be written
    score = number.get("number", "")
    scored = {**pair, "target": score} if pair and score else {}
    related = dict(zip(("anchor", "positive", "score"), scored.values(), strict=True)) if scored else {}
    rated = {**find("text"), "target": score} if find("text") and score not in ("", *find("text").values()) else {}
    labelled = {**find("text"), **label} if find("text") and label else {}
    alpaca = find("instruction", "output", optional="input")
    return [
        layout("causal-lm", "chat messages in OpenAI's layout", find("messages")),
        layout("causal-lm", "conversations in ShareGPT's layout", find("conversations")),
        layout("token-classification", "words with tags", find("tokens", "tags"), _others(columns, "tags")),
        layout("token-classification", "texts with spans", find("text", "spans")),
        layout("causal-lm", "Dolly" if "response" in alpaca.values() else "Alpaca", alpaca),
        layout("choice", "questions with choices", find("choices", "prompt", "completion")),
        layout("embedding", "pairs of anchor and positive", find("anchor", "positive", optional="negative")),
        layout("regression", "pairs of texts with a score", scored, _OR_EMBEDDING),
        layout("classification", "pairs of texts with a label", {**pair, **label} if pair and label else {}),
        layout("causal-lm", "prompts with completions", find("prompt", "completion")),
        layout("classification", "texts with lists of labels", find("text", "labels")),
        layout("regression", "texts with a number", rated, _OR_CLASSES if columns.get(score) == "integer" else ""),
        layout("classification", "texts with a label", labelled, _others(columns, "label")),
        layout("seq2seq", "sources with targets", find("source", "target"), _OR_DECODER),
        layout("embedding", "pairs of texts with a score", related),
        layout("causal-lm", "plain texts", find("text")),
    ]


def _find(columns: Mapping[str, Look], roles: Sequence[str], optional: str = "") -> dict[str, str]:
    """Return a column for each role, and for the optional one if there is one; nothing if a role has no column."""
    found: dict[str, str] = {}
    for role in roles:
        if not (column := _column(columns, role, found)):
            return {}
        found[role] = column
    if optional and (column := _column(columns, optional, found)):
        found[optional] = column
    return found


def _column(columns: Mapping[str, Look], role: str, taken: Mapping[str, str]) -> str:
    """Return the column of a role; empty if there is none."""
    by_name = {name.lower(): name for name in reversed(list(columns))}
    for name in _ROLES[role].names:
        column = by_name.get(name, "")
        if column and column not in taken.values() and columns[column] in _ROLES[role].looks:
            return column
    return ""


def _pair(columns: Mapping[str, Look]) -> dict[str, str]:
    by_name = {name.lower(): name for name in reversed(list(columns))}
    for first, second in _PAIRS:
        if {first, second} <= by_name.keys() and all(columns[by_name[name]] in _TEXTS for name in (first, second)):
            return {"text": by_name[first], "text_pair": by_name[second]}
    return {}


def _others(columns: Mapping[str, Look], role: str) -> str:
    """Return the question where several columns could have a role, and none has its surest name."""
    names, looks = _ROLES[role].names, _ROLES[role].looks
    chosen = _column(columns, role, {})
    found = [name for name, look in columns.items() if name.lower() in names and look in looks and name != chosen]
    return f"write {role}: {' or '.join(found)} to learn that" if found and chosen.lower() != names[0] else ""
