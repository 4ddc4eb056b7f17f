"""What the types whose models write a text have in common: likelihoods of the references, and texts beside them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.tasks._base import TaskType
from orchestrator.tasks.batches import Batches
from orchestrator.tasks.inputs import ColumnKind
from orchestrator.tasks.tokens import IGNORED_LABEL, in_table_order
from orchestrator.tasks.trivial import has_texts

if TYPE_CHECKING:
    from torch import Tensor, nn

    from orchestrator.tasks.generation import GeneratingSection


class TextWriter(TaskType):
    """The base of types that are scored by the likelihood of a reference text, and by the text that a model writes.

    Tokenized tables hold ``bytes``, those of each reference. Predictions hold ``row``, ``nll`` (float64, of all the
    reference's tokens), ``tokens`` (int32), ``bytes``, and ``generated`` and ``reference`` without surrounding white
    space, which are null where nothing is generated. Where rows have several references, split and tokenized tables
    hold ``references`` (list<string>), and so do predictions with generated text; ``reference`` is then the first.
    """

    section: ClassVar[type[GeneratingSection]]

    @abstractmethod
    def _generated(self, model: nn.Module, rows: pa.Table, indices: NDArray[np.int64], pad_id: int) -> list[str]:
        """Return the text that a model writes for each row."""

    @abstractmethod
    def _reference_ids(self, rows: pa.Table, indices: NDArray[np.int64]) -> list[list[int]]:
        """Return the token ids of each row's reference."""

    def scored_texts(
        self,
        model: nn.Module,
        rows: pa.Table,
        batches: Batches,
        nll: Sequence[NDArray[Any]],
        tokens: Sequence[NDArray[Any]],
        pad_id: int,
    ) -> pa.Table:
        """Return the predictions, from the negative log-likelihoods and numbers of tokens of each batch's rows."""
        order, indices = in_table_order(batches)
        columns = {
            "row": rows["row"].take(pa.array(indices)),
            "nll": pa.array(np.concatenate(nll)[order]),
            "tokens": pa.array(np.concatenate(tokens)[order].astype(np.int32)),
            "bytes": rows["bytes"].take(pa.array(indices)),
        }
        return pa.table(columns | self._texts(model, rows, indices, pad_id))

    def _texts(self, model: nn.Module, rows: pa.Table, indices: NDArray[np.int64], pad_id: int) -> dict[str, pa.Array]:
        """Return the generated text and the reference of each row."""
        if not self.generates:
            return {name: pa.nulls(len(indices), pa.string()) for name in ("generated", "reference")}
        generated = self._generated(model, rows, indices, pad_id)
        assert self.tokenizer is not None  # generate() has raised without one
        references = self.tokenizer.batch_decode(self._reference_ids(rows, indices), skip_special_tokens=True)
        columns = {"generated": generated, "reference": [reference.strip() for reference in references]}
        arrays = {name: pa.array(texts, pa.string()) for name, texts in columns.items()}
        several = references_of(rows)
        if several:
            lists = several["references"].take(pa.array(indices)).to_pylist()
            arrays["references"] = pa.array([self._as_decoded(row) for row in lists], pa.list_(pa.string()))
        return arrays

    def _as_decoded(self, texts: list[str]) -> list[str]:
        """Return texts as the tokenizer decodes them, which need not be as they are written, like generated ones."""
        assert self.tokenizer is not None
        decoded = self.tokenizer.batch_decode(self.tokenizer(text_target=texts)["input_ids"], skip_special_tokens=True)
        return [text.strip() for text in decoded]

    def answer_columns(self, labels: Sequence[str]) -> dict[str, ColumnKind]:
        """Return the column of the written text, named as that of the references."""
        return {self.section.answer_column: "string"}

    def answer(
        self,
        model: nn.Module,
        rows: pa.Table,
        batches: Batches,
        pad_id: int,
        pad_left: bool,
        labels: Sequence[str],
    ) -> pa.Table:
        """Return the text that the model writes for each row."""
        _, indices = in_table_order(batches)
        texts = pa.array(self._generated(model, rows, indices, pad_id), pa.string())
        return pa.table({self.section.answer_column: texts})

    def right_predictions(self, rows: pa.Table) -> pa.Table:
        """Return predictions that equal their (first) references."""
        predictions = super().right_predictions(rows)
        return pa.table({**{name: predictions[name] for name in predictions.column_names}, **references_of(rows)})

    reproducible_name = "negative log-likelihood of a text, in nats"

    def constant_answer(self, predictions: pa.Table) -> str:
        """Return the text that is written for all rows."""
        texts = predictions["generated"].to_pylist() if has_texts(predictions) else []
        return repr(texts[0]) if len(texts) > 1 and len(set(texts)) == 1 else ""

    def reproducible(self, predictions: pa.Table) -> NDArray[np.float64]:
        """Return the negative log-likelihood of each reference."""
        nll: NDArray[np.float64] = predictions["nll"].to_numpy()
        return nll[:, None]

    def dummy_labels(self, input_ids: Tensor, attention_mask: Tensor, labels: int) -> Tensor:
        """Return every token that is not padding as a target, of shape ``(rows, tokens)``."""
        return input_ids.masked_fill(attention_mask != 1, IGNORED_LABEL)


def references_of(rows: pa.Table) -> dict[str, pa.ChunkedArray]:
    """Return the column of all references of each row, if the rows have several."""
    return {"references": rows["references"]} if "references" in rows.column_names else {}
