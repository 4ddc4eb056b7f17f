"""Where a backbone's checkpoint comes from: a hub, a folder, a GGUF file, or an installed package."""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.backbone.examine import file_problems
from orchestrator.backbone.hub import Hub, NoSafetensorsError
from orchestrator.common.errors import InputError, Problem, first_line
from orchestrator.common.uris import expand_home, locate_package
from orchestrator.config import BackboneConfig

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

RECORDED_DIGEST = "checkpoint.sha256"
"""File with the digest of a whole checkpoint, in a copy of its folder without the weights."""
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.*", "*.model")


@dataclass(frozen=True)
class Source:
    """A checkpoint on this machine.

    Args:
        name: name of the model in the configuration.
        path: folder, or GGUF file.
        digest: digest of the content.
        portable: whether another machine can get the checkpoint by its name.
        revision: commit, if it comes from the hub.
        trust_remote_code: whether transformers may run code from the checkpoint.
        hub: the hub that has the weights, which are downloaded when they are needed.
        chat_template: template in place of the tokenizer's own.
    """

    name: str
    path: Path
    digest: str
    portable: bool
    revision: str | None = None
    trust_remote_code: bool = False
    hub: Hub | None = field(default=None, compare=False)
    chat_template: str | None = field(default=None, compare=False)

    def download_weights(self) -> None:
        """Download the weights, if they are on the hub and not on this machine.

        Raises:
            InputError: if the hub does not give them.
        """
        if self.hub is None or self.revision is None:
            return
        try:
            self.hub.download_weights(self.name, self.revision, self.path)
        except Exception as error:
            message = f"the hub did not give its weights ({first_line(error)})"
            raise InputError("backbone.model", [Problem(self.name, message)]) from error

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of transformers' ``from_pretrained`` methods."""
        arguments: dict[str, Any] = {"trust_remote_code": self.trust_remote_code}
        if self.path.suffix == ".gguf":
            return {"pretrained_model_name_or_path": self.path.parent, "gguf_file": self.path.name, **arguments}
        return {"pretrained_model_name_or_path": self.path, **arguments}

    def config(self) -> PretrainedConfig:
        """Return the architecture."""
        return copy.deepcopy(_cached_config(self)) if self.digest else _config(self)

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Return the tokenizer; where it has no padding token, the end-of-text token pads.

        Raises:
            OSError: if the checkpoint has none; transformers would make an empty one.
        """
        from transformers import AutoTokenizer

        if self.path.is_dir() and not any(any(self.path.glob(pattern)) for pattern in TOKENIZER_FILES):
            raise OSError("the checkpoint has no tokenizer")
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(**self.arguments())
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        if self.chat_template is not None:
            tokenizer.chat_template = self.chat_template
        return tokenizer


@cache
def _cached_config(source: Source) -> PretrainedConfig:
    """Read the architecture once per content: transformers reads the whole of a GGUF file for it."""
    return _config(source)


def _config(source: Source) -> PretrainedConfig:
    from transformers import AutoConfig

    config: PretrainedConfig = AutoConfig.from_pretrained(**source.arguments())
    return config


def resolve(config: BackboneConfig, base: Path, hub: Hub | None = None) -> Source:
    """Find a backbone's checkpoint, and download its architecture and tokenizer if it is on the hub.

    Args:
        config: backbone as in the configuration.
        base: folder that relative paths start from.
        hub: the hub, if not as this process's environment says.

    Raises:
        InputError: if there is no such checkpoint, or it cannot be loaded without pickle.
    """
    source = _find(config, base, hub)
    if config.chat_template is None:
        return source
    try:
        return replace(source, chat_template=(base / config.chat_template).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        message = f"cannot be read as UTF-8 ({first_line(error)})"
        raise InputError("backbone.chat_template", [Problem(config.chat_template, message)]) from error


def _find(config: BackboneConfig, base: Path, hub: Hub | None) -> Source:
    if config.model.startswith("package:"):
        return _local(config, locate_package(config.model), portable=True)
    folder = base / expand_home(config.model)
    if folder.exists():
        return _local(config, folder.resolve(), portable=False)
    return _from_hub(config, hub or Hub.from_environment())


def _local(config: BackboneConfig, path: Path, portable: bool) -> Source:
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise _model_error(config, f"{path} has no config.json")
        if not (any(path.glob("*.safetensors")) or (path / RECORDED_DIGEST).is_file()):
            raise _model_error(config, f"{path} has no *.safetensors; convert the checkpoint with save_pretrained()")
        if problems := list(file_problems(path)):
            raise InputError("backbone.model", [Problem(config.model, problem) for problem in problems])
    elif path.suffix != ".gguf":
        raise _model_error(config, f"{path} is neither a checkpoint folder nor a .gguf file")
    digest = _content_digest(path)
    return Source(config.model, path, digest, portable, trust_remote_code=config.trust_remote_code)


def _from_hub(config: BackboneConfig, hub: Hub) -> Source:
    try:
        folder = hub.download_description(config.model, config.revision)
    except NoSafetensorsError as error:
        raise _model_error(config, f"the hub's {config.model} {error}") from error
    except Exception as error:
        message = f"no local folder of that name, and the hub gave no checkpoint {config.model!r} ({first_line(error)})"
        raise _model_error(config, message) from error
    digest = hashlib.sha256(f"{config.model}@{folder.name}".encode()).hexdigest()
    return Source(
        config.model,
        folder,
        digest,
        portable=True,
        revision=folder.name,
        trust_remote_code=config.trust_remote_code,
        hub=hub,
    )


def _model_error(config: BackboneConfig, message: str) -> InputError:
    return InputError("backbone.model", [Problem(config.model, message)])


def is_weight_file(file: Path) -> bool:
    """Return whether a file of a checkpoint holds weights, or whatever else is large."""
    return file.suffix in _WEIGHTS


def _content_digest(path: Path) -> str:
    if (recorded := path / RECORDED_DIGEST).is_file():
        return recorded.read_text().strip()
    files = [path] if path.is_file() else sorted([path / "config.json", *path.glob("*.safetensors")])
    digests = []
    for file in files:
        with file.open("rb") as stream:
            digests.append((file.name, hashlib.file_digest(stream, "sha256").hexdigest()))
    return hashlib.sha256(json.dumps(digests).encode()).hexdigest()
