"""What the types that read a text, or a pair of texts, have in common: their columns, and how they are tokenized."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import model_validator

from orchestrator.common.section import refusal
from orchestrator.tasks._base import TaskType
from orchestrator.tasks.columns import Column
from orchestrator.tasks.file_headers import Key
from orchestrator.tasks.inputs import InputColumn
from orchestrator.tasks.section import TaskSection
from orchestrator.tasks.token_types import reads_token_types
from orchestrator.tasks.tokens import pad, sequences, token_column

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

TEXTS = ("text", "text_pair")


class TextSection(TaskSection):
    """The section of a type that reads texts or pairs of them."""

    text: str
    """Column of the texts."""
    text_pair: str | None = None
    """Column of second texts, for tasks on pairs; a row that is too long loses tokens of its longer text."""

    @property
    def input_columns(self) -> dict[str, str]:
        """The columns of the texts."""
        return {"text": self.text, **({"text_pair": self.text_pair} if self.text_pair else {})}

    def content_columns(self) -> dict[Key, list[str]]:
        """Return the columns of the texts."""
        return {(key,): [column] for key, column in self.input_columns.items()}

    def contents(self, columns: Mapping[str, Column]) -> dict[str, pa.Array]:
        """Return ``text``, and ``text_pair`` where there are pairs."""
        return {key: columns[column].texts for key, column in self.input_columns.items()}

    @model_validator(mode="after")
    def _has_two_columns(self) -> TextSection:
        if self.text_pair == self.text:
            raise refusal([(("text_pair",), f"is the column of text, {self.text}; name that of the second texts")])
        return self


class TextType(TaskType):
    """The base of types whose models read texts, or pairs of them, and have a head for a row as a whole.

    A decoder is read at its last token, so that rows are padded on the left: on the right, soft prompts would read the
    padding.
    """

    auto_class = "AutoModelForSequenceClassification"
    peft_task_type = "SEQ_CLS"
    text_columns = TEXTS
    input_columns: ClassVar[Mapping[str, InputColumn]] = MappingProxyType({
        "text": InputColumn(example="Thank you for the quick help!"),
        "text_pair": InputColumn(example="They answered within minutes."),
    })  # fmt: skip
    pads_left = True
    answer_sources: ClassVar[tuple[str, ...]]
    """Columns of split tables that hold what is to be predicted; tokenized tables keep those that a task has."""

    def tokenize(self, rows: pa.Table, tokenizer: PreTrainedTokenizerBase, max_length: int) -> pa.Table:
        """Return columns ``row``, ``input_ids``, and those of the type's answers.

        A text that is too long loses its end; of a pair, the longer text loses tokens until both fit. Where the model
        tells the texts of a pair apart, ``token_type_ids`` (int8) holds the type of each token.
        """
        names = [name for name in TEXTS if name in rows.column_names]
        has_types = reads_token_types(self.constants)
        settings: dict[str, Any] = {
            "truncation": "longest_first",
            "max_length": max_length,
            "return_attention_mask": False,
            "return_token_type_ids": has_types,
        }
        ids: list[list[int]] = []
        types: list[list[int]] = []
        for batch in rows.select(names).to_batches(max_chunksize=4096):
            encoded = tokenizer(*(batch[name].to_pylist() for name in names), **settings)
            ids += encoded["input_ids"]
            types += encoded["token_type_ids"] if has_types else []
        columns = {name: rows[name] for name in self.answer_sources if name in rows.column_names}
        tokens = {"input_ids": token_column(ids)}
        if has_types:
            tokens["token_type_ids"] = token_column(types, np.int8)
        return pa.table({"row": rows["row"], **tokens, **columns})

    def padded(self, rows: pa.Table, indices: NDArray[np.int64], pad_id: int, pad_left: bool) -> dict[str, Tensor]:
        """Return ``input_ids``, ``attention_mask``, and ``token_type_ids`` where the table has them; int64.

        Args:
            rows: Tokenized table.
            indices: Indices of the batch's rows.
            pad_id: Id of the padding token, whose type is 0.
            pad_left: Whether padding goes before the tokens.

        Returns:
            Tensors of shape ``(rows, tokens)``, padded to the longest row.
        """
        batch = pad(sequences(rows, indices), pad_id, pad_left)
        if "token_type_ids" in rows.column_names:
            batch["token_type_ids"] = pad(sequences(rows, indices, "token_type_ids"), 0, pad_left)["input_ids"]
        return batch

    def dummy_batch(
        self, input_ids: Tensor, attention_mask: Tensor, labels: int, targets: int | None = None
    ) -> dict[str, Tensor]:
        """Return a batch whose second half of tokens has type 1, where the model reads types."""
        batch = super().dummy_batch(input_ids, attention_mask, labels, targets)
        if reads_token_types(self.constants):
            batch["token_type_ids"] = input_ids.new_zeros(input_ids.shape)
            batch["token_type_ids"][:, input_ids.shape[1] // 2 :] = 1
        return batch

    @property
    def example_arguments(self) -> tuple[str, ...]:
        """The tokenizer's outputs that the model reads."""
        return (*super().example_arguments, *(["token_type_ids"] if reads_token_types(self.constants) else []))
