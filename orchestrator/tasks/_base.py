"""The interface of a task type: everything that depends on a task's type is a member of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from orchestrator.tasks.contract.answers import Answers
from orchestrator.tasks.contract.model import Model
from orchestrator.tasks.contract.scoring import Scoring
from orchestrator.tasks.generation import GENERATION_TOKENS, Sampling, generate
from orchestrator.tasks.section import MAX_NEW_TOKENS

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class TaskType(Model, Scoring, Answers):
    """One type of task: how its rows are tokenized, trained on, scored and answered.

    What a type has to say is in four parts, in ``orchestrator/tasks/contract``: what it makes of rows, which models it
    needs and how they are trained, how predictions are scored, and what trained models answer. A type is one file, or
    a folder: its section of the configuration, its metrics, and a subclass of this class, listed in
    ``orchestrator/tasks/registry.py``.

    Args:
        chosen: Names of the metrics that the task is scored by, the optimized one first; none before it is configured.
        generates: Whether ``evaluate`` generates text, for the metrics that need it.
        max_new_tokens: Most tokens to generate for a row.
        sampling: How to draw tokens; ``None`` for the most probable ones.
        generation_tokens: Most tokens of a batch that is generated.
        tokenizer: Decodes what is generated; ``None`` where nothing is.
        labels: Names of the task's labels in the order of their integers; none for a type without labels.
        constants: Numbers of the task, from :meth:`TaskSection.constants`; none before they are known.
    """

    max_new_tokens: int = MAX_NEW_TOKENS
    sampling: Sampling | None = None
    generation_tokens: int = GENERATION_TOKENS
    tokenizer: PreTrainedTokenizerBase | None = None
    labels: tuple[str, ...] = ()
    constants: Mapping[str, float] = field(default_factory=dict, hash=False)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The labels of which each row has exactly one, for methods that choose among them by their names."""
        return self.labels

    def configured(
        self,
        metrics: Sequence[str],
        max_new_tokens: int,
        tokenizer: PreTrainedTokenizerBase | None,
        labels: tuple[str, ...] = (),
        sampling: Sampling | None = None,
        constants: Mapping[str, float] | None = None,
    ) -> Self:
        """Return the type, ready to score by metrics, of which the first is optimized.

        ``evaluate`` then generates text if the first metric needs it; that of :meth:`for_test` does if any needs it.
        """
        generates = self.metric(metrics[0]).needs_generation
        return replace(
            self,
            chosen=tuple(metrics),
            generates=generates,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            tokenizer=tokenizer,
            labels=labels,
            constants=constants or {},
        )

    def for_test(self) -> Self:
        """Return the type as it scores the test split: by all of its chosen metrics, also those that generate text."""
        return replace(self, generates=any(self.metric(name).needs_generation for name in self.chosen))

    def generate(
        self, model: nn.Module, prompts: Sequence[NDArray[np.int32]], pad_id: int, ends: Sequence[int] = ()
    ) -> list[str]:
        """Return a text for each prompt; see :func:`orchestrator.tasks.generation.generate`.

        Args:
            model: Backbone with its adapter.
            prompts: Token ids of each prompt.
            pad_id: Id of the padding token.
            ends: Tokens that end a text, beside the tokenizer's end of sequence.

        Raises:
            ValueError: If there is no tokenizer.
        """
        if self.tokenizer is None:
            raise ValueError("a tokenizer is needed to generate")
        return generate(
            model,
            prompts,
            self.tokenizer,
            pad_id,
            max_new_tokens=self.max_new_tokens,
            ends=ends,
            sampling=self.sampling,
            tokens=self.generation_tokens,
        )
