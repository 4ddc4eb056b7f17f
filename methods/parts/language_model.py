"""The language model in a classifier: the same blocks, with the input embeddings as output embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from methods.base.spec import Context, MethodError
from methods.parts.positions import is_decoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def language_model(view: nn.Module, context: Context) -> PreTrainedModel:
    """The view of a language-modelling task as it is; for a classifier, the language model of the same weights.

    Scales and caps of the logits are the architecture's own, since its own class computes them.

    Raises:
        MethodError: if the backbone predicts no next token, or what does is not among the classifier's weights.
    """
    if context.task == "causal-lm":
        return cast("PreTrainedModel", view)
    model = _empty(view)
    base: nn.Module = view.base_model  # type: ignore[assignment]
    for name, _ in list(model.named_children()):
        part = base if name == model.base_model_prefix else getattr(base, name, None)
        if isinstance(part, nn.Module):
            setattr(model, name, part)
    _tie(model, view)
    if left := _lacking(model, base):
        where = f"{type(view).__name__} lacks {left[0]}"
        raise MethodError(f"{where}: its output embeddings are not tied to its input embeddings")
    model.requires_grad_(False).eval()
    return model


def _empty(view: nn.Module) -> PreTrainedModel:
    """The class that continues texts, without weights."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    both = getattr(view.config, "is_encoder_decoder", False)
    if not both and not is_decoder(view):
        raise MethodError(f"{type(view).__name__} is an encoder, which predicts no next token")
    try:
        with torch.device("meta"):
            model: PreTrainedModel = (AutoModelForSeq2SeqLM if both else AutoModelForCausalLM).from_config(view.config)
    except ValueError as error:
        raise MethodError(f"transformers knows no language model of {type(view).__name__}'s architecture") from error
    return model


def _tie(model: PreTrainedModel, view: nn.Module) -> None:
    embeddings: nn.Embedding = view.get_input_embeddings()  # type: ignore[operator]
    output = model.get_output_embeddings()
    if model.config.get_text_config().tie_word_embeddings and isinstance(output, nn.Linear):
        output.weight = embeddings.weight
    for name, buffer in list(model.named_buffers(recurse=False)):  # BART's additive bias, which is 0
        setattr(model, name, torch.zeros_like(buffer, device=embeddings.weight.device))


def _lacking(model: nn.Module, base: nn.Module) -> list[str]:
    own = {id(parameter) for parameter in base.parameters()}
    return [name for name, parameter in model.named_parameters() if id(parameter) not in own]
