"""A trial's parameters in its checkpoint, each once: those that the adapter's files hold are not stored again.

An adapter need not hold all of them, nor in the form in which they train (a prompt encoder is saved as the prompt that
it gives). So a parameter is left out of the state only where a tensor of the adapter has the same bits.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

Places = dict[str, tuple[str, str]]
"""Parameters that the adapter holds: the file, relative to the adapter's folder, and the tensor's name in it."""


def places_in_adapter(adapter: Path, parameters: Mapping[str, Tensor]) -> Places:
    """Return the parameters that an adapter's files hold bit for bit.

    Args:
        adapter: folder of the saved adapter.
        parameters: a trial's trainable parameters, by name.
    """
    candidates: dict[tuple[torch.Size, torch.dtype], list[str]] = defaultdict(list)
    for name, parameter in parameters.items():
        candidates[parameter.shape, parameter.dtype].append(name)
    places: Places = {}
    for file in sorted(adapter.rglob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            for key in opened.keys():  # noqa: SIM118 - not a mapping
                tensor = opened.get_tensor(key)
                # In the order of the parameters, in which methods save them too: the first one usually is it.
                for name in candidates[tensor.shape, tensor.dtype]:
                    if name not in places and torch.equal(parameters[name].detach().cpu(), tensor):
                        places[name] = (str(file.relative_to(adapter)), key)
                        break
    return places


def read_places(adapter: Path, places: Mapping[str, tuple[str, str]]) -> dict[str, Tensor]:
    """Return the parameters that an adapter's files hold, by name.

    Raises:
        OSError: if a file is missing.
        SafetensorError: if a file is damaged, or lacks a tensor.
    """
    names: dict[str, dict[str, str]] = defaultdict(dict)
    for name, (file, key) in places.items():
        names[file][key] = name
    tensors: dict[str, Tensor] = {}
    for file, keys in names.items():
        with safe_open(adapter / file, framework="pt") as opened:
            tensors |= {name: opened.get_tensor(key) for key, name in keys.items()}
    return tensors
