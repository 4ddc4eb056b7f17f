"""What a trained model answers, and what is said about it to people who use it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from orchestrator.tasks.batches import Batches
from orchestrator.tasks.contract.scoring import Evaluation
from orchestrator.tasks.inputs import ColumnKind

if TYPE_CHECKING:
    from torch import nn


class Answers(ABC):
    """From a model and rows to answers for a client, and the texts of cards and exported folders."""

    merged_note: ClassVar[str] = ""
    """What the README of a merged checkpoint says beside how transformers loads it."""

    @abstractmethod
    def answer_columns(self, labels: Sequence[str]) -> dict[str, ColumnKind]:
        """Return the columns of an answer and the kinds of their values."""

    @abstractmethod
    def answer(
        self,
        model: nn.Module,
        rows: pa.Table,
        batches: Batches,
        pad_id: int,
        pad_left: bool,
        labels: Sequence[str],
    ) -> pa.Table:
        """Answer inputs whose answers are unknown.

        Args:
            model: Backbone with its adapter.
            rows: Tokenized table of :meth:`unanswered`; at least one row.
            batches: Row indices of each batch; every row is in one.
            pad_id: Id of the padding token.
            pad_left: Whether padding goes before the tokens.
            labels: Names of the labels in the order of their integers.

        Returns:
            The columns of :meth:`answer_columns`, in the table's order.
        """

    def answer_object(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Return one line of :meth:`answer` as the JSON object that ``peft-sweep predict`` prints."""
        return answer

    def predict_again(
        self, recorded: pa.Table, answer: Callable[[pa.Table], pa.Table], evaluate: Callable[[pa.Table], Evaluation]
    ) -> pa.Table:
        """Return new predictions for recorded test rows, to compare with the recorded ones.

        A type whose answers hold what its metrics are computed from overrides this, so that ``models verify`` checks
        the served model as a whole.

        Args:
            recorded: Split table with the recorded predictions beside its own columns.
            answer: Answers the inputs of a split table through MLflow, as a client would ask for it.
            evaluate: Scores a split table.
        """
        return evaluate(recorded).predictions

    @property
    def example_arguments(self) -> tuple[str, ...]:
        """The tokenizer's outputs that the model reads."""
        return "input_ids", "attention_mask"

    def example_code(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Return lines of Python that run ``adapter.module`` on ``tokens``, for an exported folder's README."""
        arguments = ", ".join(f'{name}=tokens["{name}"]' for name in self.example_arguments)
        call = f"adapter.module({arguments})"
        return ("with torch.no_grad():", f"    logits = {call}.logits", f"print({self.example_output(labels)})")

    def example_output(self, labels: Sequence[str]) -> str:
        """Return the Python expression of what ``logits`` say about one input, for an exported folder's README."""
        return "logits.shape"

    def merged_files(self, model: nn.Module) -> dict[str, str]:
        """Return files to write beside a merged checkpoint, by path, for other libraries that load it.

        Args:
            model: The merged model.
        """
        return {}

    @abstractmethod
    def purpose(self, labels: Sequence[str]) -> str:
        """Return what a model does, for its card: ``Completes a prompt``."""
