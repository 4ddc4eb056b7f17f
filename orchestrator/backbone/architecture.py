"""The architecture of a checkpoint, for which its ``config.json`` is enough."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.backbone.source import Source
from orchestrator.common.errors import InputError, Problem, first_line
from orchestrator.common.uris import local_path
from orchestrator.config import BackboneConfig

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def architecture(config: BackboneConfig, base: Path) -> PretrainedConfig:
    """Read it; neither weights nor a tokenizer have to be there.

    Args:
        config: what is said of the backbone.
        base: the folder that relative paths start from.

    Raises:
        InputError: if there is no such checkpoint, or transformers knows no such architecture.
    """
    path = local_path(config.model, base)
    if path is not None and path.is_dir() and not (path / "config.json").is_file():
        raise _unusable(config, f"{path} has no config.json")
    if path is not None and path.is_file() and path.suffix != ".gguf":
        raise _unusable(config, f"{path} is neither a checkpoint folder nor a .gguf file")
    try:
        if path is None or not path.exists():
            return _on_the_hub(config)
        source = Source(config.model, path, "", portable=False, trust_remote_code=config.trust_remote_code)
        return source.config()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unusable(config, f"cannot be used: {first_line(error)}") from error


def _on_the_hub(config: BackboneConfig) -> PretrainedConfig:
    from transformers import AutoConfig

    trusted = config.trust_remote_code
    found: PretrainedConfig = AutoConfig.from_pretrained(
        config.model, revision=config.revision, trust_remote_code=trusted
    )
    return found


def _unusable(config: BackboneConfig, message: str) -> InputError:
    return InputError("backbone.model", [Problem(config.model, message)])
