"""The language model inside a classifier: the same blocks, with the input embeddings as output embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from methods.base.position_ids import is_decoder
from methods.base.spec import Context, MethodError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def language_model(view: nn.Module, context: Context) -> PreTrainedModel:
    """Return the view of a language-modelling task itself; for a classifier, the language model of the same weights.

    The architecture's own language-model class computes the logits, so that their scales and caps are applied.

    Raises:
        MethodError: if the backbone predicts no next token, or the classifier lacks weights of the language model.
    """
    if context.task_type == "CAUSAL_LM":
        return cast("PreTrainedModel", view)
    model = _empty(view)
    base: nn.Module = view.base_model  # type: ignore[assignment]
    for name, _ in list(model.named_children()):
        part = base if name == model.base_model_prefix else getattr(base, name, None)
        if isinstance(part, nn.Module):
            setattr(model, name, part)
    _tie(model, view)
    if missing := _missing_weights(model, base):
        problem = f"{type(view).__name__} lacks {missing[0]}"
        raise MethodError(f"{problem}: its output embeddings are not tied to its input embeddings")
    model.requires_grad_(False).eval()
    return model


def _empty(view: nn.Module) -> PreTrainedModel:
    """Return the language model of the view's architecture, without weights."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    encoder_decoder = getattr(view.config, "is_encoder_decoder", False)
    if not encoder_decoder and not is_decoder(view):
        raise MethodError(f"{type(view).__name__} is an encoder, which predicts no next token")
    auto_class = AutoModelForSeq2SeqLM if encoder_decoder else AutoModelForCausalLM
    try:
        with torch.device("meta"):
            model: PreTrainedModel = auto_class.from_config(view.config)
    except ValueError as error:
        raise MethodError(f"transformers knows no language model of {type(view).__name__}'s architecture") from error
    return model


def _tie(model: PreTrainedModel, view: nn.Module) -> None:
    embeddings: nn.Embedding = view.get_input_embeddings()  # type: ignore[operator]
    output = model.get_output_embeddings()
    if model.config.get_text_config().tie_word_embeddings and isinstance(output, nn.Linear):
        output.weight = embeddings.weight
    for name, buffer in list(model.named_buffers(recurse=False)):  # BART's bias of the logits, which is 0
        setattr(model, name, torch.zeros_like(buffer, device=embeddings.weight.device))


def _missing_weights(model: nn.Module, base: nn.Module) -> list[str]:
    base_ids = {id(parameter) for parameter in base.parameters()}
    return [name for name, parameter in model.named_parameters() if id(parameter) not in base_ids]
