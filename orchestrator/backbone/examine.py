"""What is wrong with a checkpoint, found from its small files and headers before anything is loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_config.json"
_POINTER = b"version https://git-lfs"


def file_problems(folder: Path) -> Iterator[str]:
    """Yield what is wrong with a checkpoint's files: pointers, missing or cut shards, adapters, quantized weights.

    Args:
        folder: folder of the checkpoint, with a config.json.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError:
        yield "its config.json is not JSON"
        return
    if not isinstance(config, dict):
        yield "its config.json is not a JSON object"
        return
    if quantized := config.get("quantization_config"):
        method = quantized.get("quant_method", "some method") if isinstance(quantized, dict) else "some method"
        yield (
            f"its weights are quantized already ({method}); give the original checkpoint, which the sweep quantizes by "
            "backbone.quantization"
        )
    if (folder / ADAPTER).is_file():
        yield (
            f"it has an adapter beside its weights ({ADAPTER}), which transformers would load as well; move the "
            "adapter to another folder, or merge it into the weights"
        )
    if missing := _missing_shards(folder):
        yield f"its index {INDEX} names {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not there"
    for file in sorted(folder.glob("*.safetensors")):
        if problem := _shard_problem(file):
            yield f"{file.name} {problem}"


def _missing_shards(folder: Path) -> list[str]:
    try:
        shards = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError, AttributeError):
        return [f"nothing that can be read ({INDEX} is damaged)"]
    return sorted({shard for shard in shards if not (folder / shard).is_file()})


def _shard_problem(file: Path) -> str:
    """Return what is wrong with a file of weights, by its first bytes, its header and its size; empty if nothing is."""
    from safetensors import SafetensorError, safe_open

    with file.open("rb") as stream:
        if stream.read(len(_POINTER)) == _POINTER:
            return "is a pointer of Git LFS and not the weights; run git lfs pull in its folder"
    try:
        with safe_open(file, framework="numpy"):
            return ""
    except (SafetensorError, OSError) as error:
        return f"is damaged or was not copied as a whole ({error})"


def weight_problems(folder: Path) -> Iterator[str]:
    """Yield the weights of a checkpoint that are not finite; reads all of them, one after the other.

    Args:
        folder: folder of the checkpoint; a GGUF file has quantized weights, which cannot be NaN, and is not read.
    """
    from safetensors import safe_open

    for file in sorted(folder.glob("*.safetensors")) if folder.is_dir() else ():
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  # it is no mapping
                weight = tensors.get_tensor(name)
                if weight.is_floating_point() and (count := int((~weight.isfinite()).sum())):
                    yield f"{count:,} of {weight.numel():,} values of {name} in {file.name} are NaN or infinite"


def tokenizer_problems(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    """Yield why a tokenizer does not fit its model.

    Args:
        config: the architecture.
        tokenizer: the checkpoint's tokenizer.
    """
    rows = getattr(config.get_text_config(), "vocab_size", None)
    highest = max(tokenizer.get_vocab().values(), default=-1)
    if rows is not None and highest >= rows:
        yield (
            f"its tokenizer has tokens up to {highest:,}, and its embeddings have {rows:,} rows; save it again after "
            "model.resize_token_embeddings(len(tokenizer))"
        )
    if tokenizer.pad_token_id is None:
        yield (
            "its tokenizer has neither a padding token nor an end-of-text token; set tokenizer.pad_token and save it "
            "again"
        )


def positions(config: PretrainedConfig) -> int | None:
    """Return how many tokens a row may have; ``None`` where the architecture sets no limit.

    RoBERTa and its relatives count positions from behind the padding token, so that their tables have some rows that
    no token uses.
    """
    limit: int | None = getattr(config.get_text_config(), "max_position_embeddings", None)
    table = _position_table(config)
    if table is None or table.padding_idx is None:
        return limit
    return int(table.num_embeddings - table.padding_idx - 1)


def _position_table(config: PretrainedConfig) -> Any:
    import torch
    from torch import nn
    from transformers import AutoModel

    try:
        with torch.device("meta"):
            model = AutoModel.from_config(config)
    except (ValueError, AttributeError, TypeError):  # of an architecture that has no base model
        return None
    named = (module for name, module in model.named_modules() if name.rpartition(".")[2] == "position_embeddings")
    return next((module for module in named if isinstance(module, nn.Embedding)), None)


def own_head(path: Path) -> str:
    """Return the class of the head that a fine-tuned classifier's checkpoint has; empty for a pretrained model.

    Args:
        path: folder of the checkpoint, or its GGUF file, which has no such head.
    """
    file = path / "config.json"
    if not file.is_file():
        return ""
    architectures = json.loads(file.read_text(encoding="utf-8")).get("architectures")
    names = architectures if isinstance(architectures, list) else []
    return next((name for name in names if isinstance(name, str) and is_classifier(name)), "")


def is_classifier(auto_class: str) -> bool:
    """Return whether models of a transformers class have a head for labels, of a row or of each token."""
    return auto_class.endswith("Classification")
