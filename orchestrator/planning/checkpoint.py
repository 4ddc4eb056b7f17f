"""What a checkpoint says before its weights are read: its architecture, its tokenizer, and how long rows can be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.backbone.examine import tokenizer_problems
from orchestrator.common.errors import InputError, Problem, first_line
from orchestrator.tasks import task_type

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

    from orchestrator.backbone.source import Source
    from orchestrator.config import SweepConfig


def read_checkpoint(source: Source) -> tuple[PretrainedConfig, PreTrainedTokenizerBase]:
    """Return the architecture and the tokenizer of a checkpoint.

    Raises:
        InputError: if transformers does not support the architecture, or the tokenizer is missing or does not fit it.
    """
    try:
        architecture, tokenizer = source.config(), source.tokenizer()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError("backbone.model", [Problem(source.name, f"cannot be used: {first_line(error)}")]) from error
    if problems := list(tokenizer_problems(architecture, tokenizer)):
        raise InputError("backbone.model", [Problem(source.name, problem) for problem in problems])
    return architecture, tokenizer


def require_tokenizer(config: SweepConfig, source: Source, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise the error of a tokenizer that cannot tokenize the rows of a task."""
    refusals = (task_type(task).tokenizer_refusal(tokenizer) for task in config.tasks.values())
    if reason := next(filter(None, refusals), ""):
        raise InputError("backbone.model", [Problem(source.name, reason)])


def fit_max_length(config: SweepConfig, positions: int | None) -> SweepConfig:
    """Lower the default of ``training.max_length`` to the number of positions of the backbone.

    Raises:
        InputError: if the configuration itself sets a larger value.
    """
    training = config.training
    if positions is None or training.max_length <= positions:
        return config
    if "max_length" in training.model_fields_set:
        message = f"is {training.max_length}; the backbone takes {positions} tokens at most"
        raise InputError(config.name, [Problem("training.max_length", message)])
    return config.model_copy(update={"training": training.model_copy(update={"max_length": positions})})
