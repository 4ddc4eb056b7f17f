"""Generation of text: batched, with key-value cache, and the same text in whatever batch or pack a prompt stands."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from orchestrator.common.field_types import Count, Fraction
from orchestrator.common.section import Section
from orchestrator.tasks.batches import evaluation_batches
from orchestrator.tasks.section import MAX_NEW_TOKENS, TaskSection
from orchestrator.tasks.tokens import device_of, pad

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import LogitsProcessorList, PreTrainedTokenizerBase

GENERATION_TOKENS = 4096
"""Tokens whose keys and values are in memory at once: prompts with their padding and everything generated. A batch of
them keeps a core or a GPU busy at every step, and takes 190 MB in a model of 135 million weights."""


class Sampling(Section):
    """How to draw tokens; without it, each token is the most probable one."""

    temperature: Annotated[float, Field(gt=0)] = 1.0
    """What logits are divided by: below 1, probable tokens are drawn more often."""
    top_p: Fraction = 1.0
    """Draw from the fewest tokens whose probabilities add up to this."""
    seed: int = 0
    """Seed of the draws. The same prompt has the same text, whatever is generated beside it."""


class GeneratingSection(TaskSection):
    """The base of the sections of task types that generate text."""

    max_new_tokens: Count = MAX_NEW_TOKENS
    """The most tokens to generate for a row, for the metrics of generated text."""
    sampling: Sampling | None = None
    """Draw tokens instead of taking the most probable one: ``{temperature: 0.7, top_p: 0.9, seed: 0}``."""

    answer_column: ClassVar[str]
    """The split table's column of the texts to write, beside which ``references`` may stand."""

    def encode(
        self, tables: dict[str, pa.Table], files: Mapping[str, str], key: str
    ) -> tuple[dict[str, pa.Table], tuple[str, ...]]:
        """Give the rows of files with single answers lists of one, if another file has lists of answers."""
        if any("references" in table.column_names for table in tables.values()):
            tables = {split: _with_references(table, self.answer_column) for split, table in tables.items()}
        return super().encode(tables, files, key)

    @property
    def generated_tokens(self) -> int:
        """The most tokens to generate for a row."""
        return self.max_new_tokens

    @property
    def sampled(self) -> Sampling | None:
        """How tokens are drawn."""
        return self.sampling


def _with_references(table: pa.Table, answer: str) -> pa.Table:
    if "references" in table.column_names:
        return table
    lists = pa.array([[text] for text in table[answer].to_pylist()], pa.list_(pa.string()))
    return table.append_column("references", lists)


def generate(
    model: nn.Module,
    prompts: Sequence[NDArray[np.int32]],
    tokenizer: PreTrainedTokenizerBase,
    pad_id: int,
    *,
    max_new_tokens: int,
    ends: Sequence[int] = (),
    sampling: Sampling | None = None,
    tokens: int = GENERATION_TOKENS,
) -> list[str]:
    """Generate a text for each prompt, until it ends.

    Args:
        model: Backbone with its adapter; a causal language model continues the prompts, an encoder-decoder reads them.
        prompts: Token ids of each prompt.
        tokenizer: Decodes the texts.
        pad_id: Id of the padding token.
        max_new_tokens: Most tokens of a text.
        ends: Tokens that end a text, beside the tokenizer's end of sequence.
        sampling: How to draw tokens; the most probable ones if left out.
        tokens: Most tokens of a batch, those to be generated and padding included.

    Returns:
        The texts in the prompts' order, without special tokens and surrounding white space.
    """
    stops = [int(end) for end in dict.fromkeys([tokenizer.eos_token_id, *ends]) if end is not None]
    lengths = np.array([len(prompt) for prompt in prompts]) + max_new_tokens
    texts = [""] * len(prompts)
    for indices in evaluation_batches(lengths, len(prompts), tokens):
        batch = [prompts[index] for index in indices]
        ids = _continue(model, batch, pad_id, stops, max_new_tokens, sampling)
        for index, text in zip(indices, tokenizer.batch_decode(ids, skip_special_tokens=True), strict=True):
            texts[index] = text.strip()
    return texts


def _continue(
    model: nn.Module,
    prompts: Sequence[NDArray[np.int32]],
    pad_id: int,
    stops: list[int],
    max_new_tokens: int,
    sampling: Sampling | None,
) -> Tensor:
    """Return the generated tokens of one batch, of shape ``(rows, tokens)``; what follows an end is padding."""
    import torch

    encodes = bool(getattr(model, "config", None) and model.config.is_encoder_decoder)  # type: ignore[union-attr]
    batch = {name: tensor.to(device_of(model)) for name, tensor in pad(prompts, pad_id, left=not encodes).items()}
    settings = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None, "num_beams": 1}
    with torch.no_grad():
        ids: Tensor = model.generate(  # type: ignore[operator]
            **batch,
            **settings,
            eos_token_id=stops or None,
            pad_token_id=pad_id,
            use_cache=True,
            max_new_tokens=max_new_tokens,
            logits_processor=_draws(prompts, sampling) if sampling else None,
        )
    return ids[:, 1 if encodes else batch["input_ids"].shape[1] :]


def _draws(prompts: Sequence[NDArray[np.int32]], sampling: Sampling) -> LogitsProcessorList:
    """Return the processors with which the largest logit is a draw.

    The largest of logits with Gumbel noise has the probability that its softmax says. The noise follows from the
    seed and the prompt, so that neither neighbours nor any other use of random numbers change a text.
    """
    from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

    warpers = [TemperatureLogitsWarper(sampling.temperature), TopPLogitsWarper(sampling.top_p)]
    generators = [np.random.default_rng([sampling.seed, zlib.crc32(prompt.tobytes())]) for prompt in prompts]

    def add_noise(_: Tensor, logits: Tensor) -> Tensor:
        import torch

        noise = np.stack([generator.gumbel(size=logits.shape[1]) for generator in generators])
        return logits + torch.from_numpy(noise).to(logits)

    return LogitsProcessorList([*warpers, add_noise])
