"""Keys and values of earlier tokens: needed to generate text, and nothing but memory in any other pass."""

from __future__ import annotations

from transformers import PretrainedConfig, PreTrainedModel


def switch_off(model: PreTrainedModel) -> bool:
    """Let a model keep no keys and values unless it is asked to, as ``generate(use_cache=True)`` does.

    The models inside it may hold copies of its configuration.

    Returns:
        Whether its configuration kept them before.
    """
    before = any(config.use_cache for config in _with_cache(model.config))
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            set_default(module.config, False)
    return before


def set_default(config: PretrainedConfig, keep: bool) -> None:
    """Set whether a model of this configuration keeps keys and values by default."""
    for part in _with_cache(config):
        part.use_cache = keep


def _with_cache(config: PretrainedConfig) -> list[PretrainedConfig]:
    return [part for part in (config, config.get_text_config()) if hasattr(part, "use_cache")]
