"""Virtual tokens that a small network makes while training (Liu et al., 2021, arXiv:2103.10385)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from peft import PeftModel, PromptEncoderConfig, PromptEncoderReparameterizationType
from torch import nn

from methods.base import peft_adapter
from methods.base.spec import Attached, Category, Context, Hyperparameters, MethodSpec
from methods.parts.soft_prompt import dimensions, number_positions, require_prompts, require_room

ENCODERS = {"lstm": PromptEncoderReparameterizationType.LSTM, "mlp": PromptEncoderReparameterizationType.MLP}
MLP_DEPTH = 2  # peft's network of that kind has this one, and warns at others


@dataclass(frozen=True, kw_only=True)
class PTuningParams(Hyperparameters):
    """Parameters of p-tuning.

    Args:
        tokens: virtual tokens; they take room in the model's longest input.
        encoder: what makes them: ``lstm``, bidirectional and followed by two layers, or ``mlp``, of three layers.
        width: of the encoder's middle.
        depth: layers of the LSTM; the other has none to choose.
    """

    learning_rate: float = 3e-3
    tokens: int = 20
    encoder: Literal["lstm", "mlp"] = "mlp"
    width: int = 128
    depth: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.tokens >= 1, "tokens", "at least 1")
        self.require(self.encoder in ENCODERS, "encoder", "lstm or mlp")
        self.require(self.width >= 1, "width", "at least 1")
        self.require(self.depth >= 1, "depth", "at least 1")


def attach(view: nn.Module, params: PTuningParams, context: Context) -> Attached:
    """Put the virtual tokens before the input.

    Raises:
        MethodError: if the architecture takes no embeddings from outside, or has too few positions.
    """
    require_prompts(view)
    require_room(view, params.tokens, context)
    config = PromptEncoderConfig(
        num_virtual_tokens=params.tokens,
        encoder_reparameterization_type=ENCODERS[params.encoder],
        encoder_hidden_size=params.width,
        encoder_num_layers=params.depth if params.encoder == "lstm" else MLP_DEPTH,
        **dimensions(view),
    )
    attached = peft_adapter.attached(view, config, "p_tuning", params, context)
    number_positions(attached.module)
    # an LSTM's last bits are others where gradients are kept; saved are those that predictions are made with
    return replace(attached, save=torch.no_grad()(attached.save), load=lambda folder: _load(folder, attached.module))


def _load(folder: Path, model: PeftModel) -> None:
    """Read the virtual tokens, which are all that was saved; nothing makes them from here on."""
    encoder = model.prompt_encoder[peft_adapter.ADAPTER]
    encoder.encoder_type = ENCODERS["mlp"]
    encoder.mlp_head = nn.Identity()
    if hasattr(encoder, "lstm_head"):
        del encoder.lstm_head
    peft_adapter.load(folder, model)


SPEC = MethodSpec(
    name="p_tuning",
    category=Category.SOFT_PROMPT,
    reference="Liu et al. (2021), arXiv:2103.10385",
    params_type=PTuningParams,
    attach=attach,
    starts_as_identity=False,
    peft=True,
)
