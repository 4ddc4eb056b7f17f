"""The folder that a trained adapter is kept in, and how it is read back.

Every folder holds ``method.json`` (UTF-8), with these keys:

- ``format``: 1;
- ``method``: the method's name, as in ``sweep.yaml``;
- ``params``: its parameters, by the names in its parameter class;
- ``task``: the task's type, ``classification`` or ``causal-lm``;
- ``backbone``: hub id or folder of the backbone that it was trained on;
- ``head``: full names of the modules that are saved whole, since the backbone's checkpoint does not hold them.

Beside it stand the tensors, in one of three layouts:

- of a method of `peft`, ``adapter_config.json`` and ``adapter_model.safetensors``, which
  ``peft.PeftModel.from_pretrained`` reads; the head is among ``modules_to_save``;
- of a method of our own, ``adapter.safetensors``: everything that was trained, nothing else, in float32. The
  backbone's own parameters have the names of transformers (``bert.encoder.layer.5.output.dense.bias``). What a method
  adds is named after its place: where a layer is wrapped, the wrapper takes the layer's name and the new parts follow
  (``bert.encoder.layer.5.output.dense.adapter.down.weight``). Trained backbone weights are whole matrices of shape
  ``(out, in)`` and not differences, also where transformers keeps the transpose (GPT-2); other shapes are the
  modules' own;
- of a composition, ``adapter.safetensors`` with the head, and a folder for each part, by the part's name, that is
  itself one of these.

The names alone do not say what a forward pass does with the tensors; the method's file does.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from methods import get
from methods.base.spec import Attached, Context, Hyperparameters, MethodError

FORMAT = 1
METHOD = "method.json"
TENSORS = "adapter.safetensors"


def load_adapter(view: nn.Module, folder: Path, context: Context) -> Attached:
    """Rebuild a saved adapter on a fresh view; needs neither Ray nor MLflow.

    Args:
        view: of the backbone that the adapter was trained on.
        folder: what ``Attached.save`` wrote.
        context: of the view. The original checkpoint is not asked for: a method that trained
            backbone weights finds them in the folder.

    Raises:
        MethodError: if the folder is not an adapter, or is one of another task type.
    """
    saved = read_method(folder)
    if saved["task"] != context.task:
        raise MethodError(f"{folder} was trained for {saved['task']} and cannot do {context.task}")
    try:
        spec = get(saved["method"])
    except KeyError as error:
        raise MethodError(f"{folder} names an unknown method {saved['method']!r}") from error
    context = replace(context, fresh=False)
    if spec.needs_original:
        context = replace(context, original=lambda name: _stored(folder, name))
    attached = spec.attach(view, spec.params_type.from_dict(saved["params"]), context)
    attached.load(folder)
    return attached


def read_method(folder: Path) -> dict[str, Any]:
    """What ``method.json`` says.

    Raises:
        MethodError: if there is none, or it is of another format.
    """
    try:
        saved: dict[str, Any] = json.loads((folder / METHOD).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MethodError(f"{folder} is not an adapter: {METHOD} cannot be read") from error
    if saved.get("format") != FORMAT:
        raise MethodError(f"{folder / METHOD} has format {saved.get('format')!r}; this version reads {FORMAT}")
    return saved


def save_method(folder: Path, method: str, params: Hyperparameters, context: Context) -> None:
    """Write ``method.json``."""
    saved = {
        "format": FORMAT,
        "method": method,
        "params": params.to_dict(),
        "task": context.task,
        "backbone": context.backbone,
        "head": list(context.head),
    }
    (folder / METHOD).write_text(json.dumps(saved, indent=2) + "\n", encoding="utf-8")


def save_own(folder: Path, view: nn.Module, method: str, params: Hyperparameters, context: Context) -> None:
    """Write an adapter of the format of our own: every trainable tensor by its name."""
    save_method(folder, method, params, context)
    save_file({name: p.detach().cpu().contiguous() for name, p in _trainable(view).items()}, folder / TENSORS)


def load_own(folder: Path, view: nn.Module) -> None:
    """Read the tensors back into an attached view.

    Raises:
        MethodError: if names or shapes are not the view's.
    """
    tensors, trainable = load_file(folder / TENSORS), _trainable(view)
    for name in sorted(tensors.keys() ^ trainable.keys()):
        raise MethodError(f"{folder} does not fit this backbone: {name} is on one side only")
    with torch.no_grad():
        for name, parameter in trainable.items():
            if parameter.shape != tensors[name].shape:
                shapes = f"{tuple(tensors[name].shape)} where the backbone has {tuple(parameter.shape)}"
                raise MethodError(f"{folder} does not fit this backbone: {name} is {shapes}")
            parameter.copy_(tensors[name])


def _trainable(view: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in view.named_parameters() if p.requires_grad}


def _stored(folder: Path, name: str) -> Tensor:
    """A tensor by its name in the bare backbone, from the folder or from that of a composition's part."""
    for file in (folder / TENSORS, *sorted(folder.glob(f"*/{TENSORS}"))):
        with safe_open(file, framework="pt") as opened:
            names = {key.replace(".base_layer", ""): key for key in opened.keys()}  # noqa: SIM118 - not a mapping
            if name in names:
                tensor: Tensor = opened.get_tensor(names[name])
                return tensor
    raise KeyError(f"{folder} does not hold {name}")
