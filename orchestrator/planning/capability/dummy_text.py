"""Words for the methods that read them, where no tokenizer is at hand: any vocabulary will do to try a method."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import TYPE_CHECKING

from methods.base.spec import TaskText

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

_SPECIAL = ("pad_token", "eos_token", "bos_token", "unk_token")


def dummy_text(config: PretrainedConfig, labels: int, max_length: int) -> TaskText:
    """Words of one letter each, in the place of a task's own.

    Args:
        config: whose vocabulary and special tokens are used.
        labels: classes of the task; 0 for a language model.
        max_length: tokens of a row, at most.
    """
    names = tuple(string.ascii_lowercase[:labels]) if labels <= 26 else tuple(map(str, range(labels)))
    tokenizer = _tokenizer(config)

    def examples(count: int) -> Sequence[tuple[Sequence[int], int]]:
        ids: list[int] = tokenizer.encode("a b c", add_special_tokens=False)
        return [(ids, row % max(labels, 1)) for row in range(count)]

    return TaskText(tokenizer=tokenizer, labels=names, max_length=max_length, examples=examples)


def special_ids(config: PretrainedConfig) -> dict[str, int]:
    """Ids of padding, end, beginning and unknown, each its own where the architecture names none."""
    size = config.get_text_config().vocab_size
    found: dict[str, int] = {}
    for name in _SPECIAL:
        known = getattr(config, f"{name}_id", None)
        known = known[0] if isinstance(known, list) else known
        free = next(i for i in range(size) if i not in found.values())
        found[name] = known if isinstance(known, int) and 0 <= known < size else free
    return found


def _tokenizer(config: PretrainedConfig) -> PreTrainedTokenizerBase:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    specials = special_ids(config)
    names = {number: f"<{name}>" for name, number in reversed(specials.items())}
    free = (i for i in range(config.get_text_config().vocab_size) if i not in names)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet(), key=lambda letter: (letter not in _USUAL, letter))
    vocabulary = {name: number for number, name in names.items()}
    vocabulary |= dict(zip(alphabet, free, strict=False))  # a vocabulary may be shorter than the alphabet
    unknown = names[specials["unk_token"]]
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=unknown))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    named = {name: names[number] for name, number in specials.items()}
    return PreTrainedTokenizerFast(tokenizer_object=made, **named)


_USUAL = string.ascii_letters + string.digits + string.punctuation + "Ġ"
