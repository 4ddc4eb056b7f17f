"""Masks that are found from chat templates, beside those of copies that were marked by hand."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.simulation.conversations import Conversation, make_conversation
from orchestrator.tasks.chat_template import ChatTemplate, MaskError, Span, shared_length
from orchestrator.tasks.token_spans import tokens_in
from orchestrator.tasks.turn_masks import Sample, samples

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPECIAL = re.compile("<[|\uff5c][^<>\\s]{1,40}[|\uff5c]>" r"|</?[a-z_]{1,30}>|\[/?[A-Z_]{3,20}\]")
"""What looks like a special token in a template."""


@dataclass(frozen=True)
class Listed:
    """What a marked copy assigns differently.

    Args:
        marked: Texts that it trains at the beginning of a turn, and we do not.
        unmarked: Texts that it does not train at the end of a turn, and we do.
        reason: Why ours is right.
    """

    reason: str
    marked: tuple[str, ...] = ()
    unmarked: tuple[str, ...] = ()


PROMPTED = "add_generation_prompt renders {}, so that the model is given it before every answer and never writes it"
ASSISTANT, TOOL_END = "<\uff5cAssistant\uff5c>", "<\uff5ctool▁outputs▁end\uff5c>"
LISTED = {
    "deepseek_r1_distill": Listed(PROMPTED.format(ASSISTANT), marked=(ASSISTANT,)),
    "deepseekv3": Listed(
        PROMPTED.format(f"{ASSISTANT}, after a tool's answer {TOOL_END}"), marked=(ASSISTANT, TOOL_END)
    ),
    "gptoss": Listed(PROMPTED.format("<|start|>assistant"), marked=("<|start|>assistant",)),
    "llava_next": Listed(
        "it is what the template writes after every answer, as others write a newline", unmarked=(" ",)
    ),
    "muse_glimmer": Listed(PROMPTED.format("<|start|>assistant"), marked=("<|start|>assistant",)),
    "qwen2_5": Listed(PROMPTED.format("the newline after assistant"), marked=("\n",)),
}
"""Differences that are known, by template."""


@dataclass(frozen=True)
class MarkedPair:
    """A chat template, and a copy of it with generation marks."""

    name: str
    original: str
    marked: str

    def conversations(self, count: int) -> Iterator[Conversation]:
        """Iterate over made-up conversations of the kinds that the template knows."""
        kinds = {"system": "System role not supported" not in self.original and self.name != "llava_next"}
        kinds["tools"] = "tool_calls" in self.original
        return (make_conversation(seed, **kinds) for seed in range(count))

    def tokenizers(self) -> list[PreTrainedTokenizerFast]:
        """Return two tokenizers: one that knows the template's special tokens, and one that merges over all borders."""
        texts = [str(message["content"]) for each in self.conversations(20) for message in each.messages]
        special = sorted(set(SPECIAL.findall(self.original)))
        return [
            _byte_level(texts, special, self.original, by_words=True),
            _byte_level([*texts, *[f"{token}\n{text}{token}" for token in special for text in texts[:5]]], [],
                        self.original, by_words=False),
        ]  # fmt: skip


def marked_pairs() -> list[MarkedPair]:
    """Return the pairs that the package ``trl`` ships; none where it is not installed."""
    package = find_spec("trl")
    folder = Path(package.origin).parent / "chat_templates" if package and package.origin else None
    files = sorted(folder.glob("*_training.jinja")) if folder else []
    return [
        MarkedPair(
            (name := file.name.removesuffix("_training.jinja")),
            (file.parent / f"{name}.jinja").read_text("utf-8"),
            file.read_text("utf-8"),
        )
        for file in files
    ]


def compare(pair: MarkedPair, tokenizer: PreTrainedTokenizerFast, conversation: Conversation) -> tuple[str, str]:
    """Compare the masks of a conversation.

    Args:
        pair: A template and its marked copy.
        tokenizer: Any tokenizer whose chat template is the original.
        conversation: What both render.

    Returns:
        ``equal``, ``listed`` (equal but for what :data:`LISTED` names), ``refused`` or ``different``; and the reason.
    """
    template = ChatTemplate.of(tokenizer)
    try:
        template.require_usable()
        ours = samples(template, conversation.messages, conversation.tools)
    except MaskError as error:
        return "refused", re.sub(r"message \d+", "a message", str(error))
    marked = ChatTemplate(pair.marked, template.special_tokens)
    results = {_compare_sample(pair, tokenizer, marked, conversation, sample, len(ours) > 1) for sample in ours}
    for result in ("different", "listed"):
        if result in results:
            return result, LISTED[pair.name].reason if result == "listed" else "tokens differ"
    return "equal", ""


def _compare_sample(
    pair: MarkedPair,
    tokenizer: PreTrainedTokenizerFast,
    marked: ChatTemplate,
    conversation: Conversation,
    sample: Sample,
    is_alone: bool,
) -> str:
    messages = marked.as_written(conversation.messages[: sample.messages])
    tools: list[Any] | None = conversation.tools or None
    theirs: Any = tokenizer.apply_chat_template(
        messages, tools=tools, chat_template=pair.marked, return_assistant_tokens_mask=True, return_dict=True
    )
    their_text = marked.render(conversation.messages[: sample.messages], conversation.tools)
    first = 0
    if is_alone:  # the turns before the last are trained in samples of their own
        before = marked.render(conversation.messages[: sample.messages - 1], conversation.tools).text
        first = shared_length(before, their_text.text)
    own = tokenizer(sample.text, add_special_tokens=False, return_offsets_mapping=True)
    is_same = sample.text == their_text.text
    encoded = own if is_same else tokenizer(their_text.text, add_special_tokens=False, return_offsets_mapping=True)
    assert encoded["input_ids"] == theirs["input_ids"]
    their_mask = np.array(theirs["assistant_masks"], bool) & (np.array(encoded["offset_mapping"])[:, 0] >= first)
    listed = LISTED.get(pair.name)
    candidates = {"equal": sample.trained}
    if listed:
        candidates["listed"] = tuple(_as_listed(sample.text, span, listed) for span in sample.trained)
    for result, spans in candidates.items():
        mask, ids = tokens_in(np.array(own["offset_mapping"]), spans), np.array(own["input_ids"])
        is_equal = np.array_equal(ids[mask], np.array(theirs["input_ids"])[their_mask])
        if is_equal and (not is_same or np.array_equal(mask, their_mask)):
            return result
    return "different"


def _as_listed(text: str, span: Span, listed: Listed) -> Span:
    """Return a span as the marked copy has it."""
    start, stop = span
    start -= next((len(part) for part in listed.marked if text[:start].endswith(part)), 0)
    return start, stop - next((len(part) for part in listed.unmarked if text[start:stop].endswith(part)), 0)


def _byte_level(texts: list[str], special: list[str], template: str, *, by_words: bool) -> PreTrainedTokenizerFast:
    """Train a byte-level tokenizer; one that does not read word by word merges over every border."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    model = Tokenizer(models.BPE())
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=by_words)
    model.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=700, show_progress=False, initial_alphabet=alphabet)
    model.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=model, bos_token="<BOS>", eos_token="<EOS>")
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    tokenizer.chat_template = template
    return tokenizer
