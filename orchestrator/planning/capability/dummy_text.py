"""Dummy task text, for methods that read a task's words: any vocabulary is good enough to try a method."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import TYPE_CHECKING

from methods.base.spec import TaskText

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

_SPECIAL = ("pad_token", "eos_token", "bos_token", "unk_token")


def dummy_text(config: PretrainedConfig, labels: int, max_length: int) -> TaskText:
    """Make a task text whose words are single letters.

    Args:
        config: an architecture, whose vocabulary size and special tokens are used.
        labels: number of classes of the task; 0 for a language model.
        max_length: maximum number of tokens in a row.
    """
    names = tuple(string.ascii_lowercase[:labels]) if labels <= 26 else tuple(map(str, range(labels)))
    tokenizer = _tokenizer(config)

    def examples(count: int) -> Sequence[tuple[Sequence[int], int]]:
        ids: list[int] = tokenizer.encode("a b c", add_special_tokens=False)
        return [(ids, row % max(labels, 1)) for row in range(count)]

    return TaskText(tokenizer=tokenizer, labels=names, max_length=max_length, examples=examples)


def special_ids(config: PretrainedConfig) -> dict[str, int]:
    """Return ids of the padding, end, beginning and unknown token; distinct ids if the architecture has none."""
    size = config.get_text_config().vocab_size
    ids: dict[str, int] = {}
    for name in _SPECIAL:
        token_id = getattr(config, f"{name}_id", None)
        token_id = token_id[0] if isinstance(token_id, list) else token_id
        unused = next(number for number in range(size) if number not in ids.values())
        ids[name] = token_id if isinstance(token_id, int) and 0 <= token_id < size else unused
    return ids


def _tokenizer(config: PretrainedConfig) -> PreTrainedTokenizerBase:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    specials = special_ids(config)
    names = {number: f"<{name}>" for name, number in reversed(specials.items())}
    unused = (number for number in range(config.get_text_config().vocab_size) if number not in names)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet(), key=lambda letter: (letter not in _COMMON_LETTERS, letter))
    vocabulary = {name: number for number, name in names.items()}
    vocabulary |= dict(zip(alphabet, unused, strict=False))  # a vocabulary may be shorter than the alphabet
    unknown = names[specials["unk_token"]]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special_tokens = {name: names[number] for name, number in specials.items()}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special_tokens)


_COMMON_LETTERS = string.ascii_letters + string.digits + string.punctuation + "Ġ"
