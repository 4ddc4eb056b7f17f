"""One mapped backbone, and as many views of it as there are trials."""

from __future__ import annotations

import copy
import hashlib
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from methods.base.spec import Context, Quantization, TaskType
from methods.parts.positions import number_real_tokens
from orchestrator.backbone.checkpoint import Header, frozen_weights
from orchestrator.backbone.frozen import FrozenLinear
from orchestrator.backbone.weights import SCALES

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

CHECKSUM_WHOLE = 256 * 2**20
SAMPLE = 4096


@dataclass
class SharedBackbone:
    """A backbone that is read by every trial of a lane and written by none.

    Args:
        model: the module tree that views are made from; never trained itself.
        context: what methods may know. The head is not shared: every view has its own.
        fresh: the modules of the head that the checkpoint lacks.
        decoder: whether it attends to the left only.
    """

    model: PreTrainedModel
    context: Context
    fresh: tuple[str, ...]
    decoder: bool
    _memo: dict[int, Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        number_real_tokens(self.model)
        head = {id(tensor) for name in self.context.head for tensor in self.model.get_submodule(name).parameters()}
        shared = [t for t in (*self.model.parameters(), *self.model.buffers()) if id(t) not in head]
        shared += [layer.frozen for layer in self._frozen_layers()]  # type: ignore[misc]
        self._memo = {id(thing): thing for thing in shared}

    def view(self, seed: int) -> PreTrainedModel:
        """A module tree of its own over the same frozen tensors; what the checkpoint lacks is drawn from ``seed``."""
        view = copy.deepcopy(self.model, dict(self._memo))
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(seed)
            for name in self.fresh:
                for module in view.get_submodule(name).modules():
                    view._init_weights(module)
        return view

    def parameters(self) -> int:
        """How many the checkpoint holds, frozen layers included."""
        head = tuple(f"{name}." for name in self.fresh)
        rest = sum(p.numel() for name, p in self.model.named_parameters() if not name.startswith(head or ("\0",)))
        return rest + sum(layer.in_features * layer.out_features for layer in self._frozen_layers())

    def checksum(self) -> str:
        """What it is known by: of every shared byte up to 256 MiB; of samples of each tensor beyond."""
        digest = hashlib.blake2b(digest_size=16)
        for part in _looked_at(list(self.shared_tensors())):
            digest.update(part)
        return digest.hexdigest()

    def fingerprint(self) -> int:
        """Of as many bytes and of what is derived from them, in a third of the time: to see if one has changed."""
        derived = [tensor for layer in self._frozen_layers() for tensor in layer.frozen.derived().values()]
        found = 0
        for part in _looked_at([*self.shared_tensors(), *derived]):
            found = zlib.crc32(part, found)
        return found

    def _frozen_layers(self) -> Iterator[FrozenLinear]:
        return (module for module in self.model.modules() if isinstance(module, FrozenLinear))

    def shared_tensors(self) -> Iterator[Tensor]:
        """Every tensor that all views have in common."""
        yield from (thing for thing in self._memo.values() if isinstance(thing, Tensor))
        for layer in self._frozen_layers():
            yield from layer.frozen.tensors().values()


def load(
    file: Path,
    task: TaskType,
    *,
    name: str,
    dtype: torch.dtype,
    labels: int = 0,
    device: str = "cpu",
    original: Path | None = None,
    derived: bool = True,
) -> SharedBackbone:
    """Map a backbone file; on a CPU nothing is copied.

    Args:
        file: as :func:`orchestrator.backbone.checkpoint.write` made it.
        task: decides nothing but what methods are told.
        name: hub id or folder, recorded in adapters.
        dtype: what frozen products are computed in.
        labels: size of the classification head.
        device: where the backbone lives.
        original: the same checkpoint without quantization, for methods that train backbone weights.
        derived: use what is stored to save time, too; without it, all that is used is what the checksum is of.
    """
    header = Header.read(file)
    model = _skeleton(header, labels)
    tensors = load_file(file, device=device)
    if not derived:
        tensors = {key: tensor for key, tensor in tensors.items() if not key.endswith(f":{SCALES}")}
    plain = {key: tensor for key, tensor in tensors.items() if ".weight:" not in key}
    _freeze(model, frozen_weights(tensors, header.frozen, dtype), plain, dtype)
    model.load_state_dict(plain, strict=False, assign=True)
    model.tie_weights()
    for part in header.head:
        model.get_submodule(part).to_empty(device=device)
    model.to(torch.device(device)).requires_grad_(False).eval()  # type: ignore[arg-type]
    head = head_of(model, header.head)
    context = Context(
        task=task, backbone=name, head=head, original=_originals(original), quantization=_quantization(model)
    )
    return SharedBackbone(model, context, header.head, is_decoder(header.config))


def head_of(model: nn.Module, fresh: tuple[str, ...]) -> tuple[str, ...]:
    """What stands between the last block and the logits: what the checkpoint lacks, and poolers.

    A pooler counts whether the checkpoint holds one or not, as in RoBERTa, whose head includes its own: sentence
    encoders ship poolers that were never trained.
    """
    poolers = [name for name, _ in model.named_modules() if name.rpartition(".")[2] == "pooler"] if fresh else []
    return tuple(dict.fromkeys((*poolers, *fresh)))


def _looked_at(tensors: Sequence[Tensor]) -> Iterator[memoryview]:
    """Their bytes; where that is much, evenly spaced ones of each."""
    whole = sum(tensor.numel() * tensor.element_size() for tensor in tensors) <= CHECKSUM_WHOLE
    for tensor in tensors:
        raw = tensor.detach().contiguous().view(-1).view(torch.uint8)
        if not whole and raw.numel() > 4 * SAMPLE:
            raw = raw[:: raw.numel() // SAMPLE].contiguous()
        yield raw.cpu().numpy().data


def _quantization(model: nn.Module) -> Quantization:
    layers = (module for module in model.modules() if isinstance(module, FrozenLinear))
    return next((layer.frozen.quantization for layer in layers), "none")


def _skeleton(header: Header, labels: int) -> PreTrainedModel:
    """The module tree without a single weight in memory."""
    import transformers
    from accelerate import init_empty_weights

    kind = header.config["model_type"]
    extra = {"num_labels": labels} if labels else {}
    config = transformers.CONFIG_MAPPING[kind].from_dict(header.config, **extra)
    if labels:
        pad(config)
    with init_empty_weights(include_buffers=False):
        model: PreTrainedModel = getattr(transformers, header.auto_class).from_config(config)
    return model


def pad(config: PretrainedConfig) -> None:
    """Let a classifier that has no padding token pad with what ends its texts, the first of several such tokens."""
    if config.pad_token_id is None:
        end = config.eos_token_id
        config.pad_token_id = end[0] if isinstance(end, list) else end


def _freeze(model: nn.Module, weights: dict[str, Any], plain: dict[str, Tensor], dtype: torch.dtype) -> None:
    for position, (name, weight) in enumerate(weights.items()):
        bias = plain.get(f"{name}.bias")
        parameter = None if bias is None else nn.Parameter(bias, requires_grad=False)
        model.set_submodule(name, FrozenLinear(weight, parameter, dtype, position))


def _originals(file: Path | None) -> Callable[[str], Tensor]:
    def original(name: str) -> Tensor:
        if file is None:
            raise KeyError(f"the unquantized checkpoint was not published; {name} cannot be had")
        with safe_open(file, framework="pt") as opened:
            stored = set(opened.keys())
            weight: Tensor = opened.get_tensor(name if name in stored else f"{name}:plain")
        return weight.float()

    return original


def is_decoder(config: dict[str, Any]) -> bool:
    """Attends to the left only: what transformers builds a causal language model from, encoders aside."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    kind = config["model_type"]
    if kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return bool(config.get("is_decoder", False))
    return kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
