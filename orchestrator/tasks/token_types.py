"""Which of two texts a token belongs to, for models that tell the texts of a pair apart.

BERT and its relatives add an embedding of the token's type to that of the token: 0 for the first text, 1 for the
second. A task on pairs records among its constants that its model reads types, so that everything that tokenizes for
the trained model makes them. Without that record, as in bundles of earlier releases, every token has type 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

    from orchestrator.tasks.data import TaskData

CONSTANT = "token_types"
"""The constant of a task: how many types of tokens its model has. Missing where rows have no types."""


def with_token_types(data: TaskData, config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> TaskData:
    """Return a task, with :data:`CONSTANT` if its rows are pairs whose texts the model tells apart.

    Args:
        data: The task.
        config: Configuration of its model.
        tokenizer: Tokenizer of its model.
    """
    types = int(getattr(config, "type_vocab_size", 0) or 0)  # 0 in DeBERTa v3, 1 in RoBERTa, whose tokenizer makes none
    is_pair = "text_pair" in data.config.input_columns
    if not is_pair or types < 2 or "token_type_ids" not in tokenizer.model_input_names:
        return data
    return replace(data, constants={**data.constants, CONSTANT: float(types)})


def reads_token_types(constants: Mapping[str, float]) -> bool:
    """Return whether the constants of a task say that its model reads types."""
    return constants.get(CONSTANT, 0) > 1
