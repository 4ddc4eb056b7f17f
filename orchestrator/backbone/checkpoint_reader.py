"""Read a checkpoint one tensor at a time, under the names and in the dtypes that transformers gives its weights.

transformers renames, merges and casts weights as it loads them, differently for each architecture. So transformers does
all of this here too: with a ``device_map`` of ``disk``, it leaves each weight in the checkpoint's file, and writes the
few that it has to merge (a mixture's experts, for instance) into a temporary folder, one at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from orchestrator.backbone.gguf import gguf_tensors
from orchestrator.backbone.pooler import HEADLESS, remove_pooler
from orchestrator.backbone.source import Source
from orchestrator.common.errors import InputError, Problem, describe_error

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OpenCheckpoint:
    """A checkpoint as transformers loads it.

    Args:
        model: the model. Its weights may be without values, on the meta device.
        missing: names of the parameters that the checkpoint lacks.
        read: function that reads a parameter by its name in the model.
    """

    model: PreTrainedModel
    missing: set[str]
    read: Callable[[str], Tensor]


@contextmanager
def open_checkpoint(source: Source, auto_class: str) -> Iterator[OpenCheckpoint]:
    """Open a checkpoint to read its weights one at a time; where that is not possible, they are all read at once.

    Raises:
        InputError: if transformers cannot load the checkpoint as ``auto_class``.
    """
    with TemporaryDirectory() as folder, _silent_libraries():
        try:
            opened = _open_lazily(source, auto_class, folder)
        except Exception as error:  # of any kind: what is wrong with a checkpoint shows when it is loaded as a whole
            log.info("%s is loaded as a whole, not weight by weight: %s", source.name, describe_error(error))
            opened = _load(source, auto_class)
        yield opened


def _open_lazily(source: Source, auto_class: str, folder: str) -> OpenCheckpoint:
    from transformers.integrations.accelerate import load_offloaded_parameter

    if source.path.suffix == ".gguf":
        return OpenCheckpoint(*gguf_tensors(source, auto_class))
    model, missing = _from_pretrained(source, auto_class, device_map={"": "disk"}, offload_folder=folder)
    dtype = model.config.dtype
    if isinstance(dtype, torch.dtype) and (plan := model._get_dtype_plan(dtype)):  # loading from disk ignores the plan
        raise ValueError(f"transformers keeps {', '.join(plan)} in another dtype than the rest")
    shapes = {name: parameter.shape for name, parameter in model.named_parameters() if parameter.is_meta}

    def read(name: str) -> Tensor:
        if name not in shapes:  # the checkpoint lacks it, so that it was drawn at random
            return model.get_parameter(name).detach()
        tensor: Tensor = load_offloaded_parameter(model, name)
        if tensor.shape != shapes[name]:
            reason = f"{name} has shape {list(tensor.shape)}, and {list(shapes[name])} by its configuration"
            raise _load_error(source, auto_class, reason)
        return tensor

    return OpenCheckpoint(model, missing, read)


def _load(source: Source, auto_class: str) -> OpenCheckpoint:
    from safetensors import SafetensorError

    try:
        model, missing = _from_pretrained(source, auto_class)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:  # truncated, or other shapes
        raise _load_error(source, auto_class, str(error).strip().splitlines()[0]) from error
    return OpenCheckpoint(model, missing, lambda name: model.get_parameter(name).detach())


def _load_error(source: Source, auto_class: str, reason: str) -> InputError:
    return InputError("backbone.model", [Problem(source.name, f"cannot be loaded as {auto_class}: {reason}")])


def _from_pretrained(source: Source, auto_class: str, **options: Any) -> tuple[PreTrainedModel, set[str]]:
    import transformers

    arguments = {**source.arguments(), "dtype": "auto", "output_loading_info": True, **options}
    if source.path.suffix != ".gguf":
        arguments["use_safetensors"] = True
    model, info = getattr(transformers, auto_class).from_pretrained(**arguments)
    remove_pooler(model, auto_class)
    missing = {name for name in info["missing_keys"] if auto_class != HEADLESS or not name.startswith("pooler.")}
    return model.requires_grad_(False).eval(), missing


@contextmanager
def _silent_libraries() -> Iterator[None]:
    """Keep back what is reported as a matter of course: the missing head, and weights that stay on disk."""
    import transformers

    dispatching = logging.getLogger("accelerate.big_modeling")
    verbosity, level = transformers.logging.get_verbosity(), dispatching.level
    transformers.logging.set_verbosity_error()
    dispatching.setLevel(logging.ERROR)
    try:
        yield
    finally:
        transformers.logging.set_verbosity(verbosity)
        dispatching.setLevel(level)
