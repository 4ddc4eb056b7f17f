"""A vector for each text, of the last hidden states: their mean in an encoder, the last token's in a decoder."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from orchestrator.tasks.tokens import device_of, model_inputs

if TYPE_CHECKING:
    from torch import Tensor, nn


def embed(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Return the texts' vectors of length 1, in float32, of shape ``(texts, width)``.

    Args:
        model: Encoder or decoder without a head, with or without wrappers.
        batch: ``input_ids`` and ``attention_mask`` of shape ``(texts, tokens)``, padded on either side.
    """
    import torch
    from torch.nn import functional as F

    inputs = model_inputs(model, batch)
    mask = batch["attention_mask"].to(device_of(model))
    # Soft prompts have positions of their own before those of the tokens.
    states = model(**inputs).last_hidden_state[:, -mask.shape[1] :].float()
    if takes_last_token(model):
        last = (mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)).argmax(dim=1)
        pooled = states[torch.arange(len(mask), device=mask.device), last]
    else:
        pooled = (states * mask[:, :, None]).sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp_min(1)
    return F.normalize(pooled, dim=-1)


def takes_last_token(model: nn.Module) -> bool:
    """Return whether a model's tokens see no later ones, so that only the last has seen the whole text."""
    from methods.base.position_ids import is_decoder

    return is_decoder(model)


def sentence_transformers_files(model: nn.Module) -> dict[str, str]:
    """Return the files, by path in a checkpoint's folder, by which sentence-transformers pools as :func:`embed` does.

    Args:
        model: The model of the checkpoint.
    """
    config: Any = model.config
    width = config.get_text_config().hidden_size
    package = "sentence_transformers.models"
    places = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"{package}.{name}"}
        for number, (name, path) in enumerate(places.items())
    ]
    last = takes_last_token(model)
    pooling = {"word_embedding_dimension": width, "pooling_mode_mean_tokens": not last, "pooling_mode_lasttoken": last}
    files = {"modules.json": modules, "1_Pooling/config.json": pooling, "2_Normalize/config.json": {}}
    return {path: json.dumps(content, indent=2) + "\n" for path, content in files.items()}
