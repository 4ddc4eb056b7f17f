"""A device that computes on the processor and, like a GPU, refuses tensors of another device."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map
from transformers import BertConfig, BertForSequenceClassification

DEVICE = torch.device("meta")
COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


class DeviceTensor(Tensor):
    """A tensor on the device, which holds its numbers on the processor."""

    data_on_cpu: Tensor

    @staticmethod
    def __new__(cls, data: Tensor) -> DeviceTensor:
        tensor: DeviceTensor = Tensor._make_wrapper_subclass(
            cls, data.shape, dtype=data.dtype, strides=data.stride(), device=DEVICE
        )
        tensor.data_on_cpu = data
        return tensor

    def __init__(self, data: Tensor) -> None:
        super().__init__()

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch declares it without the operation that it is called with
        cls, function: Any, types: Iterable[type], args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _run(function, args, kwargs or {})


class FakeDevice(TorchDispatchMode):
    """Lets tensors be moved to the device, and from it, while it is entered."""

    def __torch_dispatch__(
        self, function: Any, types: Iterable[type], args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _run(function, args, kwargs or {})


def _run(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors: list[Tensor] = []
    tree_map(lambda x: tensors.append(x) if isinstance(x, Tensor) and x.dim() else None, (args, kwargs))
    on_device = [isinstance(tensor, DeviceTensor) for tensor in tensors]
    if function not in COPIES and any(on_device) and not all(on_device):
        raise RuntimeError(f"{function}: expected all tensors to be on the same device")
    target = kwargs.get("device")
    results_on_device = any(on_device) if target is None else torch.device(target) == DEVICE
    kwargs = kwargs | ({"device": torch.device("cpu")} if target is not None else {})
    is_random = results_on_device and torch.Tag.nondeterministic_seeded in function.tags
    with torch.random.fork_rng(devices=[], enabled=is_random):
        if is_random:  # the generator of another device draws other numbers
            torch.default_generator.manual_seed(torch.initial_seed() + 1)
        result = function(*tree_map(_unwrap, args), **tree_map(_unwrap, kwargs))
    if function._schema.is_mutable and isinstance(args[0], Tensor):
        return args[0]
    return tree_map(_wrap, result) if results_on_device else result


def _unwrap(value: Any) -> Any:
    return value.data_on_cpu if isinstance(value, DeviceTensor) else value


def _wrap(value: Any) -> Any:
    return DeviceTensor(value) if isinstance(value, Tensor) else value


def plain_classifier() -> Any:  # transformers types ``to`` such that no device is accepted
    """Return a tiny classifier without quantized layers, whose kernels the device does not have."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    return BertForSequenceClassification(BertConfig(**sizes, intermediate_size=64)).eval()
