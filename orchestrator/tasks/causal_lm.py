"""One completion per prompt: cross-entropy of the completion's tokens; likelihood and metrics of generated text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import model_validator

from orchestrator.tasks._base import Batches, TaskType
from orchestrator.tasks.columns import Column
from orchestrator.tasks.file_headers import Key
from orchestrator.tasks.generation import GeneratingSection
from orchestrator.tasks.inputs import ColumnKind, InputColumn
from orchestrator.tasks.metric_field import MetricNames, MetricsOf
from orchestrator.tasks.templates import Template, render, template_columns
from orchestrator.tasks.text_metrics import (
    BITS_PER_BYTE,
    BLEU,
    CHRF,
    EXACT_MATCH,
    JSON_FIELDS,
    PERPLEXITY,
    ROUGE_L,
    TOKEN_F1,
    VALID_JSON,
)
from orchestrator.tasks.token_losses import next_token_losses
from orchestrator.tasks.tokens import (
    IGNORED_LABEL,
    in_table_order,
    integers,
    lengths,
    pad,
    sequences,
    token_column,
)

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase


METRICS = (
    BITS_PER_BYTE,
    PERPLEXITY,
    EXACT_MATCH,
    TOKEN_F1,
    ROUGE_L,
    BLEU,
    CHRF,
    VALID_JSON,
    JSON_FIELDS,
)


class CausalLMTask(GeneratingSection):
    """One completion per prompt; the loss counts the completion only."""

    type: Literal["causal-lm"]
    """One completion per prompt."""
    prompt: Template
    """Column of the prompts, or a template with columns in braces: ``Review: {text} Rating:``."""
    completion: Template
    """Column of the completions, or a template with columns in braces."""
    metric: Annotated[MetricNames, MetricsOf(METRICS)] = METRICS[0].name
    """What the search optimizes: a name, or a list whose first is optimized and whose others are recorded beside it.
    A task with ``prompt`` and ``completion`` that names none is scored by ``perplexity``."""

    @model_validator(mode="before")
    @classmethod
    def _keep_default_of_0_1(cls, values: Any) -> Any:
        """Score by perplexity where nothing is said, so that such a sweep stays comparable with its earlier runs."""
        if isinstance(values, dict) and {"prompt", "completion"} <= values.keys():
            return {"metric": PERPLEXITY.name, **values}
        return values

    @property
    def input_columns(self) -> dict[str, str]:
        """``prompt``: a client sends whole prompts, not the columns of a template."""
        return {"prompt": "prompt"}

    def content_columns(self) -> dict[Key, list[str]]:
        """Return the columns that the templates name."""
        return {(key,): template_columns(getattr(self, key)) for key in ("prompt", "completion")}

    def contents(self, columns: Mapping[str, Column]) -> dict[str, pa.Array]:
        """Return ``prompt`` and ``completion``."""
        return {key: render(getattr(self, key), columns) for key in ("prompt", "completion")}


class CausalLM(TaskType):
    """Any ``AutoModelForCausalLM``.

    Split tables hold ``prompt`` and ``completion``. Predictions hold ``nll`` (float64, of all the completion's tokens),
    ``tokens`` (int32, how many those are), ``bytes`` (int32, of the completion's text), and two columns that are null
    where nothing was generated: ``generated`` and ``reference`` (the greedily generated text and the completion as the
    tokenizer decodes it, without surrounding white space).
    """

    section = CausalLMTask
    metrics = METRICS
    auto_class = "AutoModelForCausalLM"
    peft_task_type = "CAUSAL_LM"
    text_columns = ("prompt", "completion")
    input_columns = MappingProxyType({"prompt": InputColumn(example="Once upon a time")})

    def tokenize(self, rows: pa.Table, tokenizer: PreTrainedTokenizerBase, max_length: int) -> pa.Table:
        """Return columns ``row``, ``input_ids`` (prompt, completion, end of sequence), ``prompt_length`` and ``bytes``.

        A row that is too long loses the beginning of its prompt; only a completion that alone is too long loses its
        end.
        """
        opening, ids, prompt_lengths, sizes = _opening(tokenizer), [], [], []
        for batch in rows.select(["prompt", "completion"]).to_batches(max_chunksize=4096):
            prompts, completions = (_plain_ids(tokenizer, batch[name]) for name in ("prompt", "completion"))
            texts = batch["completion"].to_pylist()
            for prompt, completion, text in zip(prompts, completions, texts, strict=True):
                end = [*completion, tokenizer.eos_token_id][: max_length - len(opening) - 1]
                start = [*opening, *prompt[-(max_length - len(opening) - len(end)) :]]
                ids.append([*start, *end])
                prompt_lengths.append(len(start))
                is_whole = len(end) >= len(completion)
                sizes.append(len((text if is_whole else tokenizer.decode(end)).encode()))
        columns = {
            name: pa.array(values, pa.int32()) for name, values in (("prompt_length", prompt_lengths), ("bytes", sizes))
        }
        return pa.table({"row": rows["row"], "input_ids": token_column(ids), **columns})

    def collate(
        self, rows: pa.Table, indices: NDArray[np.int64], pad_id: int, pad_left: bool = False
    ) -> dict[str, Tensor]:
        """Return ``input_ids``, ``attention_mask``, ``labels`` of shape ``(rows, tokens)``; -100 outside completions.

        Padding goes after the tokens, whatever ``pad_left`` is: positions then count from the first token, and soft
        prompts stand next to it, so that a row's likelihood does not depend on its batch. Only generation pads on the
        left, by itself.
        """
        import torch

        batch = pad(sequences(rows, indices), pad_id, left=False)
        # By position and never by the padding token, which is the end-of-sequence token of many tokenizers.
        position = batch["attention_mask"].cumsum(dim=1)
        prompt_lengths = torch.tensor(integers(rows, "prompt_length")[indices])
        is_completion = (position > prompt_lengths[:, None]) & (batch["attention_mask"] == 1)
        return {**batch, "labels": batch["input_ids"].where(is_completion, torch.tensor(IGNORED_LABEL))}

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """Return the mean cross-entropy over all completion tokens of the batch."""
        return next_token_losses(model, batch)[0].mean()

    def loss_terms(self, batch: dict[str, Tensor]) -> int:
        """Return how many tokens are predicted; nothing predicts a row's first token."""
        return int((batch["labels"][:, 1:] != IGNORED_LABEL).sum())

    def predictions(
        self, model: nn.Module, rows: pa.Table, batches: Batches, pad_id: int, pad_left: bool = False
    ) -> pa.Table:
        """Return the likelihood of each completion and, if the type generates, the generated text beside it.

        Raises:
            ValueError: If the type generates and has no tokenizer.
        """
        import torch

        nll, tokens = [], []
        with torch.no_grad():
            for indices in batches:
                losses, is_labelled = next_token_losses(model, self.collate(rows, indices, pad_id, pad_left))
                row_of_loss = is_labelled.nonzero()[:, 0].cpu().numpy()
                nll.append(np.bincount(row_of_loss, losses.double().cpu().numpy(), minlength=len(indices)))
                tokens.append(np.bincount(row_of_loss, minlength=len(indices)))
        order, indices = in_table_order(batches)
        columns = {
            "row": rows["row"].take(pa.array(indices)),
            "nll": pa.array(np.concatenate(nll)[order]),
            "tokens": pa.array(np.concatenate(tokens)[order].astype(np.int32)),
        }
        columns["bytes"] = rows["bytes"].take(pa.array(indices))
        columns |= self._texts(model, rows, indices, pad_id)
        return pa.table(columns)

    def answer_columns(self, labels: Sequence[str]) -> dict[str, ColumnKind]:
        """Return ``completion``."""
        return {"completion": "string"}

    def answer(
        self,
        model: nn.Module,
        rows: pa.Table,
        batches: Batches,
        pad_id: int,
        pad_left: bool,
        labels: Sequence[str],
    ) -> pa.Table:
        """Return a completion of each prompt."""
        _, indices = in_table_order(batches)
        return pa.table({"completion": pa.array(self.generate(model, _prompts(rows, indices), pad_id), pa.string())})

    def reproducible(self, predictions: pa.Table) -> NDArray[np.float64]:
        """Return the negative log-likelihood of each completion."""
        nll: NDArray[np.float64] = predictions["nll"].to_numpy()
        return nll[:, None]

    def purpose(self, labels: Sequence[str]) -> str:
        """Return that it completes prompts."""
        return "Completes a prompt"

    def dummy_labels(self, input_ids: Tensor, attention_mask: Tensor, labels: int) -> Tensor:
        """Return every token that is not padding as a target, of shape ``(rows, tokens)``."""
        return input_ids.masked_fill(attention_mask != 1, IGNORED_LABEL)

    def target_tokens(self, rows: pa.Table) -> NDArray[np.int64]:
        """Return how many tokens each completion has."""
        return lengths(rows) - integers(rows, "prompt_length")

    def _texts(self, model: nn.Module, rows: pa.Table, indices: NDArray[np.int64], pad_id: int) -> dict[str, pa.Array]:
        """Return the generated text and the completion of each row, without surrounding white space."""
        if not self.generates:
            return {name: pa.nulls(len(indices), pa.string()) for name in ("generated", "reference")}
        generated = self.generate(model, _prompts(rows, indices), pad_id)
        prompt_lengths = integers(rows, "prompt_length")[indices]
        pairs = zip(sequences(rows, indices), prompt_lengths, strict=True)
        completions = [sequence[length:].tolist() for sequence, length in pairs]
        assert self.tokenizer is not None  # generate() has raised without one
        references = self.tokenizer.batch_decode(completions, skip_special_tokens=True)
        columns = {"generated": generated, "reference": [reference.strip() for reference in references]}
        return {name: pa.array(texts, pa.string()) for name, texts in columns.items()}


def _prompts(rows: pa.Table, indices: NDArray[np.int64]) -> list[NDArray[np.int32]]:
    prompt_lengths = integers(rows, "prompt_length")[indices]
    return [sequence[:length] for sequence, length in zip(sequences(rows, indices), prompt_lengths, strict=True)]


def _plain_ids(tokenizer: PreTrainedTokenizerBase, texts: pa.Array) -> list[list[int]]:
    settings = {"add_special_tokens": False, "return_attention_mask": False, "verbose": False}
    ids: list[list[int]] = tokenizer(texts.to_pylist(), **settings)["input_ids"]
    return ids


def _opening(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the beginning-of-sequence token, if the tokenizer puts it before a text itself."""
    special: list[int] = tokenizer("")["input_ids"]
    return [token for token in special if token == tokenizer.bos_token_id][:1]
