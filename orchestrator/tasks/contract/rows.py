"""What a task type makes of rows: tokens, batches, and which tokens count."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.tasks.inputs import InputColumn, InputSchema
from orchestrator.tasks.section import TaskSection
from orchestrator.tasks.tokens import lengths

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase


class Rows(ABC):
    """From the rows of a split, or the inputs of a client, to batches.

    Split tables hold ``row`` (int64) and the columns of :meth:`TaskSection.contents`. Tokenized tables hold ``row``,
    ``input_ids`` (list of int32) and integers of the type's own; they travel between processes without being copied.
    """

    section: ClassVar[type[TaskSection]]
    """Its section of the configuration."""
    text_columns: ClassVar[tuple[str, ...]]
    """A split table's columns of texts, the model's input first. Rows with the same texts are duplicates."""
    input_columns: ClassVar[Mapping[str, InputColumn]]
    """What trained models can read, by the split table's columns, the main input first. A model reads those that its
    section's ``input_columns`` names."""
    pads_left: ClassVar[bool] = False
    """Whether decoders read a row at its last token, so that padding goes before the tokens."""

    @property
    def name(self) -> str:
        """Return the type's name: ``type`` in the configuration, in journals and in bundles."""
        return self.section.type_name()

    def input_schema(self, columns: Mapping[str, str]) -> InputSchema:
        """Return the columns that one trained model reads.

        Args:
            columns: Names under which clients send them, by the split table's columns, which are keys of
                :attr:`input_columns`.
        """
        return InputSchema(
            {name: self.input_columns[split_name] for split_name, name in columns.items()},
            {name: split_name for split_name, name in columns.items()},
        )

    def unanswered(self, inputs: pa.Table) -> pa.Table:
        """Return a split table of inputs whose answers are unknown.

        Columns of texts that are no inputs hold empty texts; a type with other columns overrides this.

        Args:
            inputs: Table of :meth:`InputSchema.to_table`.
        """
        rows = inputs.num_rows
        columns = {name: inputs[name] for name in inputs.column_names}
        others = {
            name: pa.array([""] * rows, pa.string()) for name in self.text_columns if name not in self.input_columns
        }
        return pa.table({"row": pa.array(range(rows), pa.int64()), **columns, **others})

    def blank_prompt(self, config: TaskSection, tokenizer: PreTrainedTokenizerBase, max_length: int) -> tuple[int, ...]:
        """Return the tokens of a prompt without content, by which scores of choices can be calibrated; none of most.

        Args:
            config: The task's section.
            tokenizer: The tokenizer.
            max_length: Most tokens of a row.
        """
        return ()

    def render(self, rows: pa.Table, tokenizer: PreTrainedTokenizerBase) -> tuple[pa.Table, list[tuple[int, str]]]:
        """Return the rows of a split as texts that the model reads, where that depends on its tokenizer.

        Returns:
            The split, and the number and the reason of each row that cannot be used.

        Raises:
            MaskError: If the tokenizer can render no row.
        """
        return rows, []

    def tokenizer_refusal(self, tokenizer: PreTrainedTokenizerBase) -> str:
        """Return why rows cannot be tokenized by a tokenizer, one line; empty if nothing is in the way."""
        return ""

    @abstractmethod
    def tokenize(self, rows: pa.Table, tokenizer: PreTrainedTokenizerBase, max_length: int) -> pa.Table:
        """Return the tokenized table of a split, rows cut to ``max_length`` tokens."""

    @abstractmethod
    def collate(
        self, rows: pa.Table, indices: NDArray[np.int64], pad_id: int, pad_left: bool = False
    ) -> dict[str, Tensor]:
        """Return a batch of a tokenized table, padded to its own longest row.

        Args:
            rows: Tokenized table.
            indices: Indices of the batch's rows.
            pad_id: Id of the padding token.
            pad_left: Whether padding goes before the tokens, where the type :attr:`pads_left`.

        Returns:
            ``input_ids`` and ``attention_mask`` of shape ``(rows, tokens)``, and the type's ``labels``; int64.
        """

    def target_tokens(self, rows: pa.Table) -> NDArray[np.int64]:
        """Return how many tokens of each row of a tokenized table can take part in the loss."""
        return lengths(rows)

    def trained_tokens(self, rows: pa.Table) -> list[NDArray[np.bool_]]:
        """Return which tokens of each row of a tokenized table the model learns to write; none of most types."""
        return [np.zeros(length, bool) for length in lengths(rows)]

    def token_roles(
        self, row: pa.Table, tokens: pa.Table, tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> list[str]:
        """Return who says each token of a row, for people who look at it; empty texts where that means nothing.

        Args:
            row: Split table of one row.
            tokens: Its tokenized table.
            tokenizer: The tokenizer.
            max_length: Tokens to which the row was cut.
        """
        return [""] * int(lengths(tokens)[0])
