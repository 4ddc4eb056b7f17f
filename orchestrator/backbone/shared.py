"""One mapped backbone, and as many views of it as there are trials."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from methods.base.position_ids import derive_position_ids_from_mask
from methods.base.spec import Context, Quantization
from orchestrator.backbone import gpu as gpu_memory
from orchestrator.backbone import key_value_cache
from orchestrator.backbone.byte_sum import byte_sum
from orchestrator.backbone.checkpoint import Header
from orchestrator.backbone.frozen import FrozenLinear
from orchestrator.backbone.pooler import remove_pooler
from orchestrator.backbone.stored import StoredBackbone, read_stored
from orchestrator.common.errors import InputError, Problem, first_line
from orchestrator.config.gpu import GpuSettings
from orchestrator.tasks import TASK_TYPES

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

COMPLETE_CHECKSUM_BYTES = 256 * 2**20
SAMPLE_BYTES = 4096


@dataclass
class SharedBackbone:
    """A backbone that every trial of a lane reads and no trial writes.

    Args:
        model: module tree that views are made from; never trained itself.
        context: what methods may read. The head is not shared: every view has its own.
        fresh: names of the head's modules that the checkpoint lacks.
        decoder: whether it attends to the left only.

    Attributes:
        keeps_cache: whether the checkpoint keeps keys and values by default. Views do so only when they generate.
    """

    model: PreTrainedModel
    context: Context
    fresh: tuple[str, ...]
    decoder: bool
    keeps_cache: bool = field(init=False)
    _memo: dict[int, Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        derive_position_ids_from_mask(self.model)
        self.keeps_cache = key_value_cache.switch_off(self.model)
        head = {id(tensor) for name in self.context.head for tensor in self.model.get_submodule(name).parameters()}
        shared = [t for t in (*self.model.parameters(), *self.model.buffers()) if id(t) not in head]
        shared += [layer.frozen for layer in self._frozen_layers()]  # type: ignore[misc]
        # copy.deepcopy takes what stands in its memo for already copied, so that views keep these very tensors.
        self._memo = {id(item): item for item in shared}

    def view(self, seed: int) -> PreTrainedModel:
        """Return a new module tree over the same frozen tensors; the head's new weights are drawn from ``seed``."""
        view = self.bare_view()
        # The GPUs' generators stay as they are: the numbers are drawn on the processor.
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.default_generator.manual_seed(seed)
            for name in self.fresh:
                _initialize_on_cpu(view, view.get_submodule(name))
        return view

    def bare_view(self) -> PreTrainedModel:
        """Return a new module tree over the same frozen tensors, with a head that is no trial's."""
        return copy.deepcopy(self.model, dict(self._memo))

    @property
    def device(self) -> torch.device:
        """Device of the shared tensors, and of every view."""
        device: torch.device = self.model.device
        return device

    def parameters(self) -> int:
        """Count the parameters of the checkpoint, frozen layers included."""
        head = tuple(f"{name}." for name in self.fresh)
        rest = sum(p.numel() for name, p in self.model.named_parameters() if not name.startswith(head or ("\0",)))
        return rest + sum(layer.in_features * layer.out_features for layer in self._frozen_layers())

    def checksum(self, after_each: Callable[[], None] = lambda: None) -> str:
        """Return the digest that adapters name the backbone by: of all bytes up to 256 MiB, of samples beyond.

        Args:
            after_each: function to call after each tensor, to release what was read for it.
        """
        digest = hashlib.blake2b(digest_size=16)
        for part in _checked_bytes(list(self.shared_tensors())):
            digest.update(part)
            after_each()
        return digest.hexdigest()

    def fingerprint(self) -> int:
        """Return a digest of the sum of each tensor's bytes, to detect stray writes; every byte counts, on any device.

        The sums are of 8 bytes at a time, modulo 2**64, so that a change of any one of them shows. Changes within one
        tensor that cancel out do not, two rows that change places for instance.
        """
        sums = torch.stack([byte_sum(tensor) for tensor in self._read_tensors])
        return int.from_bytes(hashlib.blake2b(sums.cpu().numpy().data, digest_size=8).digest())

    @cached_property
    def _read_tensors(self) -> list[Tensor]:
        """Every tensor that a pass reads and all views share."""
        plain = [item for item in self._memo.values() if isinstance(item, Tensor)]
        return plain + [tensor for layer in self._frozen_layers() for tensor in layer.frozen.read_tensors()]

    def _frozen_layers(self) -> Iterator[FrozenLinear]:
        return (module for module in self.model.modules() if isinstance(module, FrozenLinear))

    def shared_tensors(self) -> Iterator[Tensor]:
        """Yield every tensor that all views share."""
        yield from (item for item in self._memo.values() if isinstance(item, Tensor))
        for layer in self._frozen_layers():
            yield from layer.frozen.tensors().values()


def load(
    file: Path,
    task: str,
    *,
    name: str,
    dtype: torch.dtype,
    labels: int = 0,
    device: torch.device | str = "cpu",
    original: Path | None = None,
    derived: bool = True,
    attention: str = "auto",
    gpu: GpuSettings | None = None,
) -> SharedBackbone:
    """Map a backbone file; on a CPU no tensor is copied.

    Args:
        file: file that :func:`orchestrator.backbone.checkpoint.write` made.
        task: name of the task's type, passed to methods.
        name: hub id or folder, recorded in adapters.
        dtype: dtype of frozen products.
        labels: size of the classification head; 0 for a language model.
        device: device to put the backbone on; a GPU other than the first needs its index, as ``cuda:1`` has.
        original: file of the unquantized backbone, for methods that train backbone weights.
        derived: whether to use derived tensors that are stored to save time; without them, every tensor in use is
            covered by the checksum.
        attention: implementation of attention, as in the configuration.
        gpu: settings of the configuration for GPUs; ignored on a CPU.

    Raises:
        InputError: if the implementation of attention is not available.
    """
    stored = read_stored(file, dtype, device, derived)
    return assemble(stored, task, name=name, labels=labels, original=original, attention=attention, gpu=gpu)


def assemble(
    stored: StoredBackbone,
    task: str,
    *,
    name: str,
    labels: int = 0,
    original: Path | None = None,
    attention: str = "auto",
    gpu: GpuSettings | None = None,
) -> SharedBackbone:
    """Build the backbone of a task from stored tensors, which it shares with others that are built from them.

    Args:
        stored: tensors of a backbone file.
        task: as for :func:`load`.
        name: as for :func:`load`.
        labels: as for :func:`load`.
        original: as for :func:`load`.
        attention: as for :func:`load`.
        gpu: as for :func:`load`.

    Raises:
        InputError: as for :func:`load`.
    """
    header, device = stored.header, stored.device
    model = _skeleton(header, labels, attention)
    _freeze(model, stored)
    model.load_state_dict(stored.plain, strict=False, assign=True)
    model.tie_weights()
    for part in header.head:
        module = model.get_submodule(part).to_empty(device=device)
        if stored.dtype == torch.bfloat16 and next(module.parameters()).dtype == torch.float16:
            module.to(torch.bfloat16)  # like the layers below it
    model.to(device).requires_grad_(False).eval()  # type: ignore[arg-type]
    gpu = gpu if gpu and device.type == "cuda" else GpuSettings()
    if device.type == "cuda":
        gpu_memory.apply(gpu, model, torch.cuda.mem_get_info(device)[0])
        stored.frozen.update(
            (name, layer.frozen) for name, layer in model.named_modules() if isinstance(layer, FrozenLinear)
        )
        if gpu.trainable_products != "float32":
            torch.set_float32_matmul_precision("high")
    head = head_of(model, header.head)
    context = Context(
        task=task,
        task_type=TASK_TYPES[task].peft_task_type,
        backbone=name,
        head=head,
        original=_originals(original),
        quantization=_quantization(model),
        product_dtype=torch.bfloat16 if gpu.trainable_products == "bfloat16" else torch.float32,
    )
    return SharedBackbone(model, context, header.head, is_decoder(header.config))


def _initialize_on_cpu(model: PreTrainedModel, head: nn.Module) -> None:
    """Draw new weights of a head on the processor, so that a seed gives the same numbers on every device."""
    on_cpu = all(parameter.device.type == "cpu" for parameter in head.parameters())
    drawn = head if on_cpu else copy.deepcopy(head).to_empty(device="cpu")
    for module in drawn.modules():
        model._init_weights(module)
    if not on_cpu:
        for parameter, values in zip(head.parameters(), drawn.parameters(), strict=True):
            parameter.copy_(values)


def head_of(model: nn.Module, fresh: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of the modules between the last block and the logits: those the checkpoint lacks, and poolers.

    A pooler belongs to the head even if the checkpoint has one, as RoBERTa's head includes its own: sentence encoders
    ship poolers that were never trained.
    """
    poolers = [name for name, _ in model.named_modules() if name.rpartition(".")[2] == "pooler"] if fresh else []
    return tuple(dict.fromkeys((*poolers, *fresh)))


def _checked_bytes(tensors: Sequence[Tensor]) -> Iterator[memoryview]:
    """Yield all bytes of the tensors; above 256 MiB in all, evenly spaced bytes of each large tensor."""
    complete = sum(tensor.numel() * tensor.element_size() for tensor in tensors) <= COMPLETE_CHECKSUM_BYTES
    for tensor in tensors:
        raw = tensor.detach().contiguous().view(-1).view(torch.uint8)
        if not complete and raw.numel() > 4 * SAMPLE_BYTES:
            raw = raw[:: raw.numel() // SAMPLE_BYTES].contiguous()
        yield raw.cpu().numpy().data


def _quantization(model: nn.Module) -> Quantization:
    layers = (module for module in model.modules() if isinstance(module, FrozenLinear))
    return next((layer.frozen.quantization for layer in layers), "none")


def _skeleton(header: Header, labels: int, attention: str) -> PreTrainedModel:
    """Build the module tree without weights in memory.

    Raises:
        InputError: if the implementation of attention is not available.
    """
    import transformers
    from accelerate import init_empty_weights

    kind = header.config["model_type"]
    extra = {"num_labels": labels} if labels else {}
    config = transformers.CONFIG_MAPPING[kind].from_dict(header.config, **extra)
    if labels:
        pad(config)
    options = {} if attention == "auto" else {"attn_implementation": attention}
    try:
        with init_empty_weights(include_buffers=False):
            model: PreTrainedModel = getattr(transformers, header.auto_class).from_config(config, **options)
    except (ImportError, ValueError) as error:
        if not options:
            raise
        message = f"is {attention}, which {kind} cannot use here ({first_line(error)}); write auto"
        raise InputError("backbone.attention", [Problem("", message)]) from error
    remove_pooler(model, header.auto_class)
    return model


def pad(config: PretrainedConfig) -> None:
    """Set a missing padding token to the end-of-text token, the first of several."""
    if config.pad_token_id is None:
        end = config.eos_token_id
        config.pad_token_id = end[0] if isinstance(end, list) else end


def _freeze(model: nn.Module, stored: StoredBackbone) -> None:
    for position, (name, weight) in enumerate(stored.frozen.items()):
        bias = stored.plain.get(f"{name}.bias")
        parameter = None if bias is None else nn.Parameter(bias, requires_grad=False)
        model.set_submodule(name, FrozenLinear(weight, parameter, stored.dtype, position))


def _originals(file: Path | None) -> Callable[[str], Tensor]:
    def original(name: str) -> Tensor:
        if file is None:
            raise KeyError(f"the unquantized checkpoint was not published; {name} is not available")
        with safe_open(file, framework="pt") as opened:
            stored = set(opened.keys())
            weight: Tensor = opened.get_tensor(name if name in stored else f"{name}:plain")
        return weight.float()

    return original


def is_decoder(config: dict[str, Any]) -> bool:
    """Return whether a model attends to the left only.

    An architecture with a masked language model does if its configuration says so; any other does if transformers has a
    causal language model of it.
    """
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    kind = config["model_type"]
    if kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return bool(config.get("is_decoder", False))
    return kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
