"""What a hard prompt says around a text, and the words that stand for the classes, as token ids.

Rows are tokenized once for all methods, so a prompt is put together from pieces that are tokenized each for itself:
what stands before the text, the text, what stands after it, and the class.
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
NAMES = "names"
BETWEEN = "\n\n"
CONTENT_FREE = "N/A"
ANY = "a"


@dataclass(frozen=True)
class Words:
    """A prompt's pieces.

    Args:
        before: what precedes a row's own tokens: what the tokenizer begins every text with, examples, an instruction.
        after: what follows them and asks for the class.
        classes: tokens of each class's word, as many of their first ones as tell it from the others.
        blank: a text without content, to measure what the prompt alone prefers.
        opening: how many special tokens a tokenized row begins with.
        closing: how many it ends with.
    """

    before: list[int]
    after: list[int]
    classes: list[list[int]]
    blank: list[int]
    opening: int
    closing: int


def check_template(template: str) -> str:
    """What is wrong with a template that is not one of :data:`TEMPLATES`; nothing, if it can be used."""
    if template in TEMPLATES:
        return ""
    if template.count(TEXT) != 1 or template.count(LABEL) != 1 or not template.endswith(LABEL):
        return f"one of {', '.join(TEMPLATES)}, or a text with {TEXT} once and {LABEL} once, at its end"
    return ""


def check_verbalizers(verbalizers: str) -> str:
    """What is wrong with the words given for classes; nothing, if they can be read."""
    return "" if verbalizers == NAMES or _pairs(verbalizers) else f"{NAMES}, or as in 'neg = bad; pos = good'"


def classifying(text: TaskText, template: str, verbalizers: str, examples: int, *, closes: bool) -> Words:
    """The prompt of a classifier.

    Args:
        text: the task's words.
        template: a name in :data:`TEMPLATES`, or a text of that form.
        verbalizers: words for classes, :data:`NAMES` for their own names.
        examples: how many rows with their classes stand before the text.
        closes: whether the tokenizer's own end of a text follows the prompt, as an encoder wants it.

    Raises:
        MethodError: if the words of two classes cannot be told apart, or words are given for unknown classes.
    """
    names = _names(text.labels, verbalizers)
    start, cue, gap = _parts(template, names)
    opening, closing = _ends(text)
    before, after = _ids(text, start), _following(text, ANY, cue)
    words = [_following(text, cue, gap + name) for name in names]
    shown: list[int] = []
    for ids, label in text.examples(examples):
        shown += [*before, *_inside(ids, opening, closing), *after, *words[label], *_following(text, ANY, BETWEEN)]
    return Words(
        before=[*opening, *shown, *before],
        after=[*after, *(closing if closes else [])],
        classes=_telling(words, names),
        blank=_ids(text, CONTENT_FREE),
        opening=len(opening),
        closing=len(closing),
    )


def continuing(text: TaskText, examples: int) -> Words:
    """The prompt of a language model: examples, each a prompt with its completion."""
    special: list[int] = text.tokenizer("")["input_ids"]
    opening = [token for token in special if token == text.tokenizer.bos_token_id][:1]
    end = [text.tokenizer.eos_token_id]
    shown: list[int] = []
    for ids, _ in text.examples(examples):
        shown += [*_inside(ids, opening, end), *_following(text, ANY, BETWEEN)]
    return Words([*opening, *shown], [], [], [], len(opening), 0)


def _names(labels: Sequence[str], verbalizers: str) -> list[str]:
    given = {} if verbalizers == NAMES else _pairs(verbalizers)
    if unknown := [name for name in given if name not in labels]:
        raise MethodError(f"verbalizers name {unknown[0]!r}, which is no class; those are {', '.join(labels)}")
    return [given.get(label, label) for label in labels]


def _pairs(verbalizers: str) -> dict[str, str]:
    """Words by class, of a text such as ``neg = bad; pos = good``; empty if it is none."""
    pairs = [[side.strip() for side in pair.split("=", 1)] for pair in verbalizers.split(";")]
    return {pair[0]: pair[1] for pair in pairs} if all(len(pair) == 2 and all(pair) for pair in pairs) else {}


def _parts(template: str, names: list[str]) -> tuple[str, str, str]:
    """What stands before the text, between text and class, and the spaces right before the class."""
    written = TEMPLATES.get(template, template).replace(LABELS, ", ".join(names))
    start, rest = written.split(TEXT)
    rest = rest.removesuffix(LABEL)
    cue = rest.rstrip(" ")
    return start, cue, rest[len(cue) :]


def _ids(text: TaskText, written: str) -> list[int]:
    ids: list[int] = text.tokenizer(written, add_special_tokens=False)["input_ids"] if written else []
    return ids


def _following(text: TaskText, cue: str, written: str) -> list[int]:
    """Token ids of a text that stands after another one.

    Some tokenizers keep the space before a word in its token, others begin every text with a space of their own.
    """
    whole, head = _ids(text, cue + written), _ids(text, cue)
    return whole[len(head) :] if whole[: len(head)] == head else _ids(text, written)


def _ends(text: TaskText) -> tuple[list[int], list[int]]:
    """The special tokens that the tokenizer puts before and after every text."""
    marked: list[int] = text.tokenizer("a")["input_ids"]
    plain = _ids(text, "a")
    start = next(k for k in range(len(marked)) if marked[k : k + len(plain)] == plain)
    return marked[:start], marked[start + len(plain) :]


def _inside(ids: Sequence[int], opening: list[int], closing: list[int]) -> list[int]:
    """A row without what the tokenizer puts around it, as far as it is there."""
    own = list(ids)
    own = own[len(opening) :] if own[: len(opening)] == opening else own
    return own[: -len(closing)] if closing and own[-len(closing) :] == closing else own


def _telling(words: list[list[int]], names: list[str]) -> list[list[int]]:
    """As few first tokens as tell each word from the others."""
    shortest = next(
        (k for k in range(1, max(map(len, words)) + 1) if len({tuple(w[:k]) for w in words}) == len(words)), 0
    )
    cut = [word[:shortest] for word in words]
    for k, one in enumerate(cut):
        for j, other in enumerate(cut):
            if j != k and other[: len(one)] == one:
                clash = f"{names[j]!r} begins like {names[k]!r} to this tokenizer"
                raise MethodError(f"the classes' words cannot be told apart: {clash}; give others with verbalizers")
    return cut
