"""The README of an exported folder: what it contains, and the code that loads it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

from orchestrator.backbone.plain_code import plain_imports, plain_model
from orchestrator.export.merged import Merged, head_size, shared_auto_class
from orchestrator.export.trained import Trained
from orchestrator.tasks import TASK_TYPES
from orchestrator.tracking.modelcard import agreement_text


def adapter_readme(trained: Trained, folder: str) -> str:
    """Return the README of an adapter's folder; its code runs where this project is installed."""
    prepared = "quantized" if _is_quantized(trained) else "converted"
    parts = [
        f"# {folder}\n\nA `{trained.method}` adapter for `{trained.backbone.model}` ({_precision(trained)}):"
        f" {trained.origin}.",
        f"```python\n{loading(trained, folder)}```",
        f"Ray and MLflow are not needed. The backbone is {prepared} at the first use and cached.",
    ]
    if trained.peft:
        parts.append(
            "peft also loads the folder, over the unquantized backbone:\n\n"
            f"```python\n{peft_loading(trained, folder)}```\n\n"
            f"{agreement_text(trained.backbone, trained.peft_agreement)}"
        )
    else:
        parts.append(
            "`method.json` holds the method and its parameters; the safetensors files hold the trained tensors by name."
        )
    return "\n\n".join(parts) + "\n"


def merged_readme(trained: Trained, folder: str, merged: Merged) -> str:
    """Return the README of a merged checkpoint's folder."""
    note = TASK_TYPES[trained.type].merged_note
    weights = f"weights in {trained.backbone.quantization}" if _is_quantized(trained) else "unquantized weights"
    dequantized = " dequantized," if _is_quantized(trained) else ""
    return (
        f"# {folder}\n\n`{trained.backbone.model}` with a `{trained.method}` adapter merged into it: {trained.origin}."
        f" The adapter was trained over {weights}; this checkpoint holds those weights,{dequantized} in"
        f" {merged.dtype}.\n\n"
        f"```python\nfrom transformers import {merged.auto_class}, AutoTokenizer\n\n"
        f'model = {merged.auto_class}.from_pretrained("{folder}")\n'
        f'tokenizer = AutoTokenizer.from_pretrained("{folder}")\n```\n\n'
        f"Its results differ from the adapter's by at most {merged.largest_difference:.1e}"
        f" ({merged.rows} rows of random tokens).\n" + (f"\n{note}\n" if note else "")
    )


def _is_quantized(trained: Trained) -> bool:
    return trained.backbone.quantization != "none"


def _precision(trained: Trained) -> str:
    return trained.backbone.quantization if _is_quantized(trained) else "not quantized"


def loading(trained: Trained, folder: str) -> str:
    """Return Python code that loads an adapter and runs it on an example."""
    type_ = replace(TASK_TYPES[trained.type], labels=trained.labels, constants=trained.constants)
    call = type_.input_schema(trained.columns).tokenizer_call
    lines = [
        "from pathlib import Path",
        "",
        "import torch",
        "from transformers import AutoTokenizer",
        "",
        f"from methods import load_adapter{', register' if trained.plugins else ''}",
        "from orchestrator.backbone.pretrained import pretrained",
        "",
        f'folder = Path("{folder}")',
        *(f'register(folder / "{plugin.name}")' for plugin in trained.plugins),
        f"backbone = pretrained({', '.join(_arguments(trained))})",
        "adapter = load_adapter(backbone.view(0), folder, backbone.context)",
        "adapter.train(False)",
        f"tokens = AutoTokenizer.from_pretrained(folder){call}",
        *type_.example_code(trained.labels),
    ]
    return "\n".join(lines) + "\n"


def peft_loading(trained: Trained, folder: str) -> str:
    """Return Python code that loads an adapter with peft and transformers alone."""
    auto_class, model = shared_auto_class(trained), trained.backbone.model
    expression = plain_model(model, auto_class, revision=trained.backbone.revision, labels=head_size(trained))
    *resources, transformers = plain_imports(model, auto_class)
    lines = [*resources, "from peft import PeftModel", transformers, "", f"model = {expression}"]
    return "\n".join([*lines, f"model = PeftModel.from_pretrained(model, {json.dumps(folder)})"]) + "\n"


def _arguments(trained: Trained) -> Iterator[str]:
    """Return the arguments of :func:`orchestrator.backbone.pretrained.pretrained` that differ from its defaults."""
    backbone = trained.backbone
    yield json.dumps(backbone.model, ensure_ascii=False)
    yield json.dumps(trained.type)
    if labels := head_size(trained):
        yield f"labels={labels}"
    if backbone.quantization != "nf4":
        yield f'quantization="{backbone.quantization}"'
    if backbone.quantization in ("nf4", "fp4") and not backbone.double_quantization:
        yield "double_quantization=False"
    if backbone.revision:
        yield f'revision="{backbone.revision}"'
    if backbone.compute_dtype != "float32":
        yield f"dtype=torch.{backbone.compute_dtype}"
