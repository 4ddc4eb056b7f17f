"""What a checkpoint says before its weights are read: its architecture, its tokenizer, and how long rows can be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.backbone.examine import positions, tokenizer_problems, weight_problems
from orchestrator.common.errors import InputError, Problem, describe_error, first_line
from orchestrator.tasks import task_type

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

    from orchestrator.backbone.source import Source
    from orchestrator.config import SweepConfig

MOST_WEIGHTS = 10
"""Weights that are listed, of a checkpoint that has more with NaN."""


def read_checkpoint(source: Source) -> tuple[PretrainedConfig, PreTrainedTokenizerBase, int | None]:
    """Return the architecture of a checkpoint, its tokenizer, and how many tokens a row may have, if it sets a limit.

    Raises:
        InputError: if transformers cannot build the architecture, or the tokenizer is missing or does not fit it.
    """
    try:
        architecture, tokenizer = source.config(), source.tokenizer()
        row_limit = positions(architecture)
    except Exception as error:  # of any kind: transformers reads these files as if they were right
        reason = first_line(error) if isinstance(error, OSError | ValueError) else describe_error(error)
        raise InputError("backbone.model", [Problem(source.name, f"cannot be used: {reason}")]) from error
    if not getattr(architecture.get_text_config(), "num_hidden_layers", 1) > 0:
        raise InputError("backbone.model", [Problem(source.name, "its config.json says that it has no layers")])
    if problems := list(tokenizer_problems(architecture, tokenizer)):
        raise InputError("backbone.model", [Problem(source.name, problem) for problem in problems])
    return architecture, tokenizer, row_limit


def require_finite_weights(source: Source) -> None:
    """Read all weights of a checkpoint, which are downloaded first if they are on the hub.

    Raises:
        InputError: if values are NaN or infinite.
    """
    source.download_weights()
    if problems := list(weight_problems(source.path)):
        raise InputError("backbone.model", [Problem(source.name, problem) for problem in problems[:MOST_WEIGHTS]])


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
