"""Virtual tokens that a small network computes while training (Liu et al., 2021, arXiv:2103.10385)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from peft import PeftModel, PromptEncoderConfig, PromptEncoderReparameterizationType
from torch import nn

from methods.base import peft_adapter
from methods.base.spec import Attached, Category, Context, Hyperparameters, MethodSpec
from methods.parts.soft_prompt import (
    derive_peft_position_ids_from_mask,
    prompt_dimensions,
    require_positions,
    require_virtual_tokens,
)

ENCODERS = {"lstm": PromptEncoderReparameterizationType.LSTM, "mlp": PromptEncoderReparameterizationType.MLP}
MLP_DEPTH = 2  # the depth of peft's MLP, which warns at any other


@dataclass(frozen=True, kw_only=True)
class PTuningParams(Hyperparameters):
    """Parameters of p-tuning.

    Args:
        tokens: number of virtual tokens; they use up positions of the model's longest input.
        encoder: network that computes them: ``lstm``, bidirectional and followed by two layers, or ``mlp``, of three
            layers.
        width: hidden size of the network.
        depth: number of layers of the LSTM; without effect on ``mlp``.
    """

    learning_rate: float = 3e-3
    tokens: int = 20
    encoder: Literal["lstm", "mlp"] = "mlp"
    width: int = 128
    depth: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_in_range("tokens", "width", "depth")
        self.require(self.encoder in ENCODERS, "encoder", "lstm or mlp")


def attach(view: nn.Module, params: PTuningParams, context: Context) -> Attached:
    """Put the virtual tokens before the input.

    Raises:
        MethodError: if the architecture takes no embeddings from outside, or has too few positions.
    """
    require_virtual_tokens(view)
    require_positions(view, params.tokens, context)
    config = PromptEncoderConfig(
        num_virtual_tokens=params.tokens,
        encoder_reparameterization_type=ENCODERS[params.encoder],
        encoder_hidden_size=params.width,
        encoder_num_layers=params.depth if params.encoder == "lstm" else MLP_DEPTH,
        **prompt_dimensions(view),
    )
    attached = peft_adapter.attach(view, config, "p_tuning", params, context)
    derive_peft_position_ids_from_mask(attached.module)
    # an LSTM's last bits differ with and without gradients; predictions are made without
    return replace(attached, save=torch.no_grad()(attached.save), load=lambda folder: _load(folder, attached.module))


def _load(folder: Path, model: PeftModel) -> None:
    """Read the virtual tokens, which alone were saved; the network that computed them is dropped."""
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
