"""Learned embeddings of virtual tokens before the input, ``f([p, x])`` (Lester et al., 2021, arXiv:2104.08691)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from peft import PromptTuningConfig, PromptTuningInit
from torch import nn

from methods.base import peft_adapter
from methods.base.spec import Attached, Category, Context, Hyperparameters, MethodSpec
from methods.parts.soft_prompt import (
    derive_peft_position_ids_from_mask,
    initial_token_ids,
    prompt_dimensions,
    require_positions,
    require_virtual_tokens,
    set_initial_prompt,
)

# peft's own TEXT loads a tokenizer from the hub, also when a saved adapter is read; attach() sets the words instead
INITS = {
    "vocabulary": PromptTuningInit.SAMPLE_VOCAB,
    "random": PromptTuningInit.RANDOM,
    "text": PromptTuningInit.RANDOM,
}


@dataclass(frozen=True, kw_only=True)
class PromptParams(Hyperparameters):
    """Parameters of prompt tuning.

    Args:
        tokens: number of virtual tokens; they use up positions of the model's longest input.
        init: initial virtual tokens: ``vocabulary``, embeddings of random tokens; ``random``, from a unit normal;
            ``text``, embeddings of ``init_text``, repeated or cut to fit.
        init_text: initial words; if empty, the names of the classes, and random tokens where there are no classes.
    """

    learning_rate: float = 3e-2
    tokens: int = 20
    init: Literal["vocabulary", "random", "text"] = "vocabulary"
    init_text: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_in_range("tokens")
        self.require(self.init in INITS, "init", "vocabulary, random or text")
        self.require(not self.init_text or self.init == "text", "init_text", "empty where init is not text")


def attach(view: nn.Module, params: PromptParams, context: Context) -> Attached:
    """Put the virtual tokens before the input.

    Raises:
        MethodError: if the architecture takes no embeddings from outside, or has too few positions.
    """
    require_virtual_tokens(view)
    require_positions(view, params.tokens, context)
    config = PromptTuningConfig(
        num_virtual_tokens=params.tokens,
        prompt_tuning_init=INITS[params.init],
        **prompt_dimensions(view),
    )
    attached = peft_adapter.attach(view, config, "prompt", params, context)
    if params.init == "text":
        ids = initial_token_ids(view, context, params.tokens, params.init_text)
        set_initial_prompt(attached.module, view.get_input_embeddings()(ids).detach())  # type: ignore[operator]
    derive_peft_position_ids_from_mask(attached.module)
    return attached


SPEC = MethodSpec(
    name="prompt",
    category=Category.SOFT_PROMPT,
    reference="Lester et al. (2021), arXiv:2104.08691",
    params_type=PromptParams,
    attach=attach,
    starts_as_identity=False,
    peft=True,
)
