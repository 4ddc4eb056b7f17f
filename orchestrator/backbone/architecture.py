"""The architecture of a checkpoint, read from its ``config.json`` alone."""

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
    """Read the architecture of a backbone; neither weights nor a tokenizer are needed.

    Args:
        config: backbone as in the configuration.
        base: folder that relative paths start from.

    Raises:
        InputError: if there is no such checkpoint, or transformers knows no such architecture.
    """
    path = local_path(config.model, base)
    if path is not None and path.is_dir() and not (path / "config.json").is_file():
        raise _model_error(config, f"{path} has no config.json")
    if path is not None and path.is_file() and path.suffix != ".gguf":
        raise _model_error(config, f"{path} is neither a checkpoint folder nor a .gguf file")
    try:
        if path is None or not path.exists():
            return _hub_config(config)
        source = Source(config.model, path, "", portable=False, trust_remote_code=config.trust_remote_code)
        return source.config()
    except Exception as error:  # of any kind: transformers reads the file as if it were right
        raise _model_error(config, f"cannot be used: {first_line(error)}") from error


def _hub_config(config: BackboneConfig) -> PretrainedConfig:
    from transformers import AutoConfig

    hub_config: PretrainedConfig = AutoConfig.from_pretrained(
        config.model, revision=config.revision, trust_remote_code=config.trust_remote_code
    )
    return hub_config


def _model_error(config: BackboneConfig, message: str) -> InputError:
    return InputError("backbone.model", [Problem(config.model, message)])
