"""The token ids of a hard prompt: the text around a row, the examples before it, and the words for the classes.

Rows are tokenized once for all methods. So a prompt is put together from pieces that are tokenized separately: the
text before the row, the row, the text after it, and the class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from methods.base.spec import MethodError, TaskText

TEXT, LABEL, LABELS = "{text}", "{label}", "{labels}"
TEMPLATES = {
    "label": "{text}\nLabel: {label}",
    "question": "{text}\nQuestion: which of {labels} is this?\nAnswer: {label}",
    "instruction": "Read the text and choose one of {labels}.\n{text}\nChoice: {label}",
}
CLASS_NAMES = "names"
EXAMPLE_SEPARATOR = "\n\n"
CONTENT_FREE_TEXT = "N/A"
ANY_WORD = "a"


@dataclass(frozen=True)
class PromptTokens:
    """Token ids of a prompt.

    Args:
        before: ids before a row's own: the tokenizer's first special tokens, examples, an instruction.
        after: ids after the row's own, which ask for the class.
        classes: ids of each class's word, cut to the shortest length that distinguishes the words.
        blank: ids of a text without content, or of a language model's whole prompt without content, which shows the
            class that the prompt alone prefers; empty if there is none.
        opening: number of special tokens at the beginning of a tokenized row.
        closing: number of special tokens at its end.
    """

    before: list[int]
    after: list[int]
    classes: list[list[int]]
    blank: list[int]
    opening: int
    closing: int


def template_range(template: str) -> str:
    """Return what a template must be, if this one is invalid; an empty string if it is valid."""
    if template in TEMPLATES:
        return ""
    if template.count(TEXT) != 1 or template.count(LABEL) != 1 or not template.endswith(LABEL):
        return f"one of {', '.join(TEMPLATES)}, or a text with {TEXT} once and {LABEL} once, at its end"
    return ""


def verbalizers_range(verbalizers: str) -> str:
    """Return what the words for classes must be, if these are invalid; an empty string if they are valid."""
    return (
        ""
        if verbalizers == CLASS_NAMES or _word_by_class(verbalizers)
        else f"{CLASS_NAMES}, or as in 'neg = bad; pos = good'"
    )


def classification_prompt(
    text: TaskText, template: str, verbalizers: str, examples: int, *, closes: bool
) -> PromptTokens:
    """Return the prompt of a classifier.

    Args:
        text: the task's words.
        template: key of :data:`TEMPLATES`, or a text of that form.
        verbalizers: words for classes; :data:`CLASS_NAMES` for the classes' names.
        examples: number of training rows with their classes before the text.
        closes: whether the tokenizer's last special tokens follow the prompt, as an encoder needs them.

    Raises:
        MethodError: if the words of two classes cannot be distinguished, or words are given for unknown classes.
    """
    words = _class_words(text.labels, verbalizers)
    start, cue, spaces = _split_template(template, words)
    opening, closing = _special_tokens(text)
    before, after = _token_ids(text, start), _continuation_ids(text, ANY_WORD, cue)
    word_ids = [_continuation_ids(text, cue, spaces + word) for word in words]
    separator = _continuation_ids(text, ANY_WORD, EXAMPLE_SEPARATOR)
    shown: list[int] = []
    for ids, label in text.examples(examples):
        shown += [*before, *_without_special_tokens(ids, opening, closing), *after, *word_ids[label], *separator]
    return PromptTokens(
        before=[*opening, *shown, *before],
        after=[*after, *(closing if closes else [])],
        classes=_distinct_prefixes(word_ids, words),
        blank=_token_ids(text, CONTENT_FREE_TEXT),
        opening=len(opening),
        closing=len(closing),
    )


def completion_prompt(text: TaskText, examples: int) -> PromptTokens:
    """Return the prompt of a language model: examples, each a prompt with its completion."""
    special: list[int] = text.tokenizer("")["input_ids"]
    opening = [token for token in special if token == text.tokenizer.bos_token_id][:1]
    end = [text.tokenizer.eos_token_id]
    separator = _continuation_ids(text, ANY_WORD, EXAMPLE_SEPARATOR)
    shown: list[int] = []
    for ids, _ in text.examples(examples):
        shown += [*_without_special_tokens(ids, opening, end), *separator]
    return PromptTokens([*opening, *shown], [], [], list(text.blank), len(opening), 0)


def _class_words(labels: Sequence[str], verbalizers: str) -> list[str]:
    words = {} if verbalizers == CLASS_NAMES else _word_by_class(verbalizers)
    if unknown := [name for name in words if name not in labels]:
        raise MethodError(f"verbalizers name {unknown[0]!r}, which is not a class; the classes are {', '.join(labels)}")
    return [words.get(label, label) for label in labels]


def _word_by_class(verbalizers: str) -> dict[str, str]:
    """Parse a text such as ``neg = bad; pos = good``; return an empty mapping if it has another form."""
    pairs = [[side.strip() for side in pair.split("=", 1)] for pair in verbalizers.split(";")]
    return {pair[0]: pair[1] for pair in pairs} if all(len(pair) == 2 and all(pair) for pair in pairs) else {}


def _split_template(template: str, words: list[str]) -> tuple[str, str, str]:
    """Return the text before the row, the text between row and class, and the spaces right before the class."""
    template = TEMPLATES.get(template, template).replace(LABELS, ", ".join(words))
    start, rest = template.split(TEXT)
    rest = rest.removesuffix(LABEL)
    cue = rest.rstrip(" ")
    return start, cue, rest[len(cue) :]


def _token_ids(text: TaskText, piece: str) -> list[int]:
    ids: list[int] = text.tokenizer(piece, add_special_tokens=False)["input_ids"] if piece else []
    return ids


def _continuation_ids(text: TaskText, cue: str, piece: str) -> list[int]:
    """Return the token ids of ``piece`` where it follows ``cue``.

    Byte-level tokenizers join the space before a word with the word; SentencePiece begins every text with a space of
    its own. So the piece is tokenized together with the cue where that leaves the cue's tokens as they are.
    """
    joined_ids, cue_ids = _token_ids(text, cue + piece), _token_ids(text, cue)
    return joined_ids[len(cue_ids) :] if joined_ids[: len(cue_ids)] == cue_ids else _token_ids(text, piece)


def _special_tokens(text: TaskText) -> tuple[list[int], list[int]]:
    """Return the special tokens that the tokenizer puts before and after every text."""
    with_special: list[int] = text.tokenizer(ANY_WORD)["input_ids"]
    plain = _token_ids(text, ANY_WORD)
    start = next(k for k in range(len(with_special)) if with_special[k : k + len(plain)] == plain)
    return with_special[:start], with_special[start + len(plain) :]


def _without_special_tokens(ids: Sequence[int], opening: list[int], closing: list[int]) -> list[int]:
    """Return a row without the tokenizer's special tokens at its ends, where it has them."""
    row = list(ids)
    row = row[len(opening) :] if row[: len(opening)] == opening else row
    return row[: -len(closing)] if closing and row[-len(closing) :] == closing else row


def _distinct_prefixes(word_ids: list[list[int]], words: list[str]) -> list[list[int]]:
    """Cut all words to the smallest number of first tokens that distinguishes them.

    Raises:
        MethodError: if one word's tokens begin with another's.
    """
    length = next(
        (k for k in range(1, max(map(len, word_ids)) + 1) if len({tuple(w[:k]) for w in word_ids}) == len(word_ids)), 0
    )
    prefixes = [ids[:length] for ids in word_ids]
    for k, prefix in enumerate(prefixes):
        for j, other in enumerate(prefixes):
            if j != k and other[: len(prefix)] == prefix:
                reason = f"{words[j]!r} begins like {words[k]!r} in this tokenizer"
                raise MethodError(f"the classes' words cannot be told apart: {reason}; write others in verbalizers")
    return prefixes
