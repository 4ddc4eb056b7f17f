"""The folder of a saved adapter: its layout, and how it is written and read.

Every folder holds ``method.json`` (UTF-8), with these keys:

- ``format``: 1;
- ``method``: the method's name, as in ``sweep.yaml``;
- ``params``: its parameters, by the names in its parameter class;
- ``task``: the name of the task's type;
- ``backbone``: hub id or folder of the backbone that it was trained on;
- ``head``: full names of the modules that are saved whole, since the backbone's checkpoint does not hold them.

The tensors are stored beside it, in one of three layouts:

- for a method of `peft`, ``adapter_config.json`` and ``adapter_model.safetensors``, which
  ``peft.PeftModel.from_pretrained`` reads; the head is among ``modules_to_save``;
- for any other method, ``adapter.safetensors``: every trained tensor, nothing else, in float32. The backbone's own
  parameters have the names of transformers (``bert.encoder.layer.5.output.dense.bias``). Tensors that a method adds
  are named after their place: where a layer is wrapped, the wrapper takes the layer's name and the new parts follow
  (``bert.encoder.layer.5.output.dense.adapter.down.weight``). Trained backbone weights are whole matrices of shape
  ``(out, in)`` and not differences, also where transformers keeps the transpose (GPT-2); other shapes are the
  modules' own;
- for a composition, ``adapter.safetensors`` with the head, and for each part a folder, named after the part, that has
  one of these layouts itself.

The names alone do not define the forward pass; the method's file does.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from methods.base.spec import Context, Hyperparameters, MethodError

FORMAT = 1
METHOD_FILE = "method.json"
TENSORS_FILE = "adapter.safetensors"


def read_method(folder: Path) -> dict[str, Any]:
    """Return the contents of ``method.json``.

    Raises:
        MethodError: if the file is missing, unreadable, or of another format.
    """
    try:
        record: dict[str, Any] = json.loads((folder / METHOD_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MethodError(f"{folder} is not an adapter: {METHOD_FILE} cannot be read") from error
    if record.get("format") != FORMAT:
        raise MethodError(f"{folder / METHOD_FILE} has format {record.get('format')!r}; this version reads {FORMAT}")
    return record


def save_method(folder: Path, method: str, params: Hyperparameters, context: Context) -> None:
    """Write ``method.json``."""
    record = {
        "format": FORMAT,
        "method": method,
        "params": params.to_dict(),
        "task": context.task,
        "backbone": context.backbone,
        "head": list(context.head),
    }
    (folder / METHOD_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def save_trainable(folder: Path, view: nn.Module, method: str, params: Hyperparameters, context: Context) -> None:
    """Write ``method.json``, and every trainable tensor of ``view`` under its name."""
    save_method(folder, method, params, context)
    save_file({name: p.detach().cpu().contiguous() for name, p in _trainable(view).items()}, folder / TENSORS_FILE)


def load_trainable(folder: Path, view: nn.Module) -> None:
    """Copy the saved tensors into the trainable parameters of an attached view.

    Raises:
        MethodError: if names or shapes differ from the view's.
    """
    tensors, trainable = load_file(folder / TENSORS_FILE), _trainable(view)
    for name in sorted(tensors.keys() ^ trainable.keys()):
        raise MethodError(f"{folder} does not fit this backbone: {name} is on one side only")
    with torch.no_grad():
        for name, parameter in trainable.items():
            if parameter.shape != tensors[name].shape:
                shapes = f"{tuple(tensors[name].shape)} where the backbone has {tuple(parameter.shape)}"
                raise MethodError(f"{folder} does not fit this backbone: {name} is {shapes}")
            parameter.copy_(tensors[name])


def stored_tensor(folder: Path, name: str) -> Tensor:
    """Read one tensor by its name in the bare backbone, from the folder or from the folder of a composition's part.

    Raises:
        KeyError: if no file of the adapter holds it.
    """
    for file in (folder / TENSORS_FILE, *sorted(folder.glob(f"*/{TENSORS_FILE}"))):
        with safe_open(file, framework="pt") as opened:
            # another part may have wrapped the layer before this one was saved
            names = {key.replace(".base_layer", ""): key for key in opened.keys()}  # noqa: SIM118 - not a mapping
            if name in names:
                tensor: Tensor = opened.get_tensor(names[name])
                return tensor
    raise KeyError(f"{folder} does not hold {name}")


def _trainable(view: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in view.named_parameters() if p.requires_grad}
