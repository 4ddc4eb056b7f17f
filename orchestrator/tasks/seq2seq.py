"""One target text per source text, for encoder-decoders: cross-entropy of the target; metrics of generated text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.tasks.batches import Batches
from orchestrator.tasks.columns import Column
from orchestrator.tasks.file_headers import Key
from orchestrator.tasks.generation import GeneratingSection
from orchestrator.tasks.inputs import InputColumn
from orchestrator.tasks.metric_field import MetricNames, MetricsOf
from orchestrator.tasks.section import MAX_NEW_TOKENS
from orchestrator.tasks.templates import Template, render, render_alternatives, template_columns
from orchestrator.tasks.text_metrics import BITS_PER_BYTE, BLEU, CHRF, EXACT_MATCH, ROUGE_L, TOKEN_F1
from orchestrator.tasks.token_losses import target_losses
from orchestrator.tasks.tokens import (
    IGNORED_LABEL,
    device_of,
    first_and_rest,
    integers,
    lengths,
    model_inputs,
    pad,
    token_column,
)
from orchestrator.tasks.trivial import TrivialPredictor, has_texts, most_frequent_text, written
from orchestrator.tasks.written_text import TextWriter, references_of

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PretrainedConfig, PreTrainedTokenizerBase


METRICS = (ROUGE_L, BLEU, CHRF, EXACT_MATCH, TOKEN_F1, BITS_PER_BYTE)


class Seq2SeqTask(GeneratingSection):
    """One target text per source text, for encoder-decoders."""

    answer_column = "target"

    type: Literal["seq2seq"]
    """One target text per source text."""
    source: Template
    """Column of the texts to read, or a template with columns in braces: ``summarize: {article}``."""
    target: Template
    """Column of the texts to write, or a template with columns in braces. A row may have a list of them: the first is
    trained, and metrics of generated text compare with all."""
    metric: Annotated[MetricNames, MetricsOf(METRICS)] = METRICS[0].name
    """What the search optimizes: a name, or a list whose first is optimized and whose others are recorded beside it."""

    @property
    def input_columns(self) -> dict[str, str]:
        """``source``: a client sends whole texts, not the columns of a template."""
        return {"source": "source"}

    def content_columns(self) -> dict[Key, list[str]]:
        """Return the columns that the templates name."""
        return {(key,): template_columns(getattr(self, key)) for key in ("source", "target")}

    def contents(self, columns: Mapping[str, Column]) -> dict[str, pa.Array]:
        """Return ``source`` and ``target``, and ``references`` where rows have lists of targets."""
        targets, references = render_alternatives(self.target, columns)
        contents = {"source": render(self.source, columns), "target": targets}
        return contents if references is None else {**contents, "references": references}


class Seq2Seq(TextWriter):
    """Any ``AutoModelForSeq2SeqLM``.

    Split tables hold ``source`` and ``target``. Tokenized tables hold both in ``input_ids``, the source's tokens first,
    so that a row is as long as what its model computes; ``source_length`` says where the target begins. Predictions
    hold what those of a causal language model do.
    """

    section = Seq2SeqTask
    metrics = METRICS
    auto_class = "AutoModelForSeq2SeqLM"
    peft_task_type = "SEQ_2_SEQ_LM"
    text_columns = ("source", "target")
    input_columns = MappingProxyType({"source": InputColumn(example="Thank you for the quick help!")})

    def trivial_predictors(self, splits: Mapping[str, pa.Table], predictions: pa.Table) -> tuple[TrivialPredictor, ...]:
        """Return copies of the sources, and the most frequent training target, where texts are scored."""
        if not has_texts(predictions):
            return ()
        common = most_frequent_text(splits["train"]["target"].to_pylist())
        texts = {
            "copying the source": splits["test"]["source"].to_pylist(),
            "always writing the most frequent training target": [common] * predictions.num_rows,
        }
        return written(predictions, texts)

    def tokenize(self, rows: pa.Table, tokenizer: PreTrainedTokenizerBase, max_length: int) -> pa.Table:
        """Return columns ``row``, ``input_ids`` (source and target), ``source_length`` and ``bytes`` of the target.

        Each side that is longer than ``max_length`` loses its end. A target ends with the end of sequence, which tells
        the model when to stop, whether or not the tokenizer adds it.
        """
        ids, source_lengths, sizes = [], [], []
        settings: dict[str, Any] = {"truncation": True, "return_attention_mask": False}
        for batch in rows.select(["source", "target"]).to_batches(max_chunksize=4096):
            texts = batch["target"].to_pylist()
            sources = tokenizer(batch["source"].to_pylist(), max_length=max_length, **settings)["input_ids"]
            targets = tokenizer(text_target=texts, max_length=max_length + 1, **settings)["input_ids"]
            for source, target, text in zip(sources, targets, texts, strict=True):
                kept = _ended(target, tokenizer.eos_token_id, max_length)
                ids.append([*source, *kept])
                source_lengths.append(len(source))
                is_whole = len(kept) >= len(target)
                read = text if is_whole else cast("str", tokenizer.decode(kept, skip_special_tokens=True))
                sizes.append(len(read.encode()))
        columns = {"source_length": pa.array(source_lengths, pa.int32()), "bytes": pa.array(sizes, pa.int32())}
        return pa.table({"row": rows["row"], "input_ids": token_column(ids), **columns, **references_of(rows)})

    def collate(
        self, rows: pa.Table, indices: NDArray[np.int64], pad_id: int, pad_left: bool = False
    ) -> dict[str, Tensor]:
        """Return ``input_ids`` and ``attention_mask`` of the sources, and ``labels``: the targets, -100 where padded.

        Both are padded at their ends, each to its own longest: encoders read all of a row, and decoders begin it alike.
        """
        sources, targets = first_and_rest(rows, indices, "source_length")
        return {**pad(sources, pad_id, left=False), "labels": pad(targets, IGNORED_LABEL, left=False)["input_ids"]}

    def inputs(self, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the sources, and the targets as the model shifts them: the decoder reads what precedes each target."""
        labels = batch["labels"].to(device_of(model))
        shifted = _language_model(model).prepare_decoder_input_ids_from_labels(labels=labels)
        return {**model_inputs(model, batch), "decoder_input_ids": shifted}

    def forward(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """Return the logits of all targets."""
        logits: Tensor = model(**self.inputs(model, batch)).logits
        return logits

    def forward_shape(self, config: PretrainedConfig, batch: dict[str, Tensor]) -> tuple[int, ...]:
        """Return ``(rows, target tokens, vocabulary)``."""
        return (*batch["labels"].shape, config.get_text_config().vocab_size)

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """Return the mean cross-entropy over all target tokens of the batch."""
        return target_losses(model, self.inputs(model, batch), batch["labels"])[0].mean()

    def predictions(
        self, model: nn.Module, rows: pa.Table, batches: Batches, pad_id: int, pad_left: bool = False
    ) -> pa.Table:
        """Return the likelihood of each target, and the generated text if the task's metric needs it."""
        import torch

        nll, tokens = [], []
        for indices in batches:
            batch = self.collate(rows, indices, pad_id)
            with torch.no_grad():
                losses, is_target = target_losses(model, self.inputs(model, batch), batch["labels"])
            by_token = is_target.double().masked_scatter(is_target, losses.double())
            nll.append(by_token.sum(dim=1).cpu().numpy())
            tokens.append(is_target.sum(dim=1).cpu().numpy())
        return self.scored_texts(model, rows, batches, nll, tokens, pad_id)

    def example_code(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Return lines that generate a target."""
        inputs = 'input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]'
        return (
            f"ids = adapter.module.generate({inputs}, use_cache=True, max_new_tokens={MAX_NEW_TOKENS})",
            "print(AutoTokenizer.from_pretrained(folder).decode(ids[0], skip_special_tokens=True))",
        )

    def purpose(self, labels: Sequence[str]) -> str:
        """Return that it writes a text for a text."""
        return "Writes a target text for a source text"

    def dummy_batch(
        self, input_ids: Tensor, attention_mask: Tensor, labels: int, targets: int | None = None
    ) -> dict[str, Tensor]:
        """Return a batch whose rows are a source and a target; half of the tokens each, unless targets are known."""
        tokens = input_ids.shape[1]
        cut = max(1, tokens - (tokens // 2 if targets is None else targets))
        made_up = self.dummy_labels(input_ids[:, cut:], attention_mask[:, cut:], labels)
        return {"input_ids": input_ids[:, :cut], "attention_mask": attention_mask[:, :cut], "labels": made_up}

    def target_tokens(self, rows: pa.Table) -> NDArray[np.int64]:
        """Return how many tokens each target has."""
        return lengths(rows) - integers(rows, "source_length")

    def trained_tokens(self, rows: pa.Table) -> list[NDArray[np.bool_]]:
        """Return the tokens of each target."""
        pairs = zip(lengths(rows), integers(rows, "source_length"), strict=True)
        return [np.arange(length) >= start for length, start in pairs]

    def _generated(self, model: nn.Module, rows: pa.Table, indices: NDArray[np.int64], pad_id: int) -> list[str]:
        sources, _ = first_and_rest(rows, indices, "source_length")
        return self.generate(model, sources, pad_id)

    def _reference_ids(self, rows: pa.Table, indices: NDArray[np.int64]) -> list[list[int]]:
        _, targets = first_and_rest(rows, indices, "source_length")
        return [ids.tolist() for ids in targets]


def _language_model(model: nn.Module) -> Any:
    """Return the model of transformers inside any wrappers."""
    for module in model.modules():
        if hasattr(type(module), "prepare_decoder_input_ids_from_labels"):
            return module
    raise ValueError(f"{type(model).__name__} cannot shift targets for its decoder")


def _ended(target: list[int], end: int, max_length: int) -> list[int]:
    """Return a target's tokens with their end of sequence, at most ``max_length`` in all."""
    content = target[:-1] if target[-1:] == [end] else target
    return [*content[: max_length - 1], end]
