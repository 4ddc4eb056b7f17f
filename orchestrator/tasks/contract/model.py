"""Which models a task type needs, what they compute for a batch, and the loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from orchestrator.tasks.tokens import IGNORED_LABEL, model_inputs

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PretrainedConfig

    from methods.base.spec import PeftTaskType


class Model(ABC):
    """From batches to a loss, and batches of made-up tokens for models that are tried without rows."""

    auto_class: ClassVar[str]
    """The transformers class that loads its models."""
    peft_task_type: ClassVar[PeftTaskType]
    """The kind of model that methods attach to."""
    is_divisible: ClassVar[bool] = True
    """Whether a row's loss and score are its own, so that batches and splits can be computed in parts."""
    example_labels: ClassVar[int] = 0
    """How many labels a task has where methods are tried without data; 0 for a type without labels."""

    @property
    def predicts_next_token(self) -> bool:
        """Whether its models are causal language models."""
        return self.peft_task_type == "CAUSAL_LM"

    @property
    def scores_tokens(self) -> bool:
        """Whether its models give logits for each token, and not for a row as a whole."""
        return self.peft_task_type != "SEQ_CLS"

    def head_size(self, labels: int) -> int:
        """Return how many outputs the head has that every trial trains; 0 for a language model, which has its own.

        Args:
            labels: Number of the task's labels.
        """
        return 0 if self.predicts_next_token else labels

    def refusal(self, config: PretrainedConfig) -> str:
        """Return why models of an architecture cannot learn such tasks, one line; empty if nothing is in the way."""
        return ""

    def inputs(self, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return what a model is called with for a collated batch, on the model's device."""
        return model_inputs(model, batch)

    def forward(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """Return what a model gives for a collated batch: :meth:`forward_shape` is its shape.

        Soft prompts have positions of their own before those of the tokens, which are left out.
        """
        logits: Tensor = model(**self.inputs(model, batch)).logits
        return logits[:, -batch["input_ids"].shape[1] :] if self.scores_tokens else logits

    def forward_shape(self, config: PretrainedConfig, batch: dict[str, Tensor]) -> tuple[int, ...]:
        """Return the shape of :meth:`forward`: ``(rows, labels)``, or ``(rows, tokens, labels or vocabulary)``."""
        width: Any = config.get_text_config().vocab_size if self.predicts_next_token else config.num_labels
        rows, tokens = batch["input_ids"].shape
        return (rows, tokens, width) if self.scores_tokens else (rows, width)

    @abstractmethod
    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """Return the scalar to minimize on a collated batch."""

    def loss_terms(self, batch: dict[str, Tensor]) -> int:
        """Return how many terms the mean of :meth:`loss` has: the weight of a batch that is trained in parts."""
        return int((batch["labels"] != IGNORED_LABEL).sum())

    @abstractmethod
    def dummy_labels(self, input_ids: Tensor, attention_mask: Tensor, labels: int) -> Tensor:
        """Return labels for made-up tokens, with the shape and dtype of :meth:`collate`'s; also on the meta device.

        Args:
            input_ids: Tokens of shape ``(rows, tokens)``.
            attention_mask: 0 where a token is padding, of the same shape.
            labels: Size of the model's head; 0 for a language model.
        """

    def dummy_batch(
        self, input_ids: Tensor, attention_mask: Tensor, labels: int, targets: int | None = None
    ) -> dict[str, Tensor]:
        """Return a batch as :meth:`collate` makes it, of made-up tokens; also on the meta device.

        A type whose rows are several sequences cuts the tokens into so many parts.

        Args:
            input_ids: As for :meth:`dummy_labels`.
            attention_mask: As for :meth:`dummy_labels`.
            labels: As for :meth:`dummy_labels`.
            targets: Tokens per row that count in the loss, if that is known.
        """
        made_up = self.dummy_labels(input_ids, attention_mask, labels)
        return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": made_up}
