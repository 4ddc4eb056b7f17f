"""From a checkpoint through quantization and a file back to a model."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from orchestrator.backbone.checkpoint import Header, matrix, write
from orchestrator.backbone.frozen import FrozenLinear, compute_dtype
from orchestrator.backbone.shared import SharedBackbone, load, pad
from orchestrator.backbone.source import Source
from orchestrator.backbone.weights import quantize, restore

from .conftest import AUTO_CLASSES, LABELS

KINDS = [("bert", "classification"), ("llama", "classification"), ("llama", "causal-lm"), ("gpt2", "causal-lm")]
STORED = [("nf4", True), ("nf4", False), ("fp4", True), ("fp4", False), ("int8", False), ("none", False)]
# Root mean square error over that of the weights themselves, which are normal: 4-bit NormalFloat comes to 0.095,
# 4-bit float to 0.13, 255 levels a row to 0.007. A second quantization of the scales adds little.
ERRORS = {"nf4": (0.05, 0.11), "fp4": (0.05, 0.16), "int8": (0.002, 0.012), "none": (0.0, 0.0)}


def plain(source: Source, task: str) -> nn.Module:
    auto = getattr(transformers, AUTO_CLASSES[task])
    extra = {"num_labels": LABELS, "pad_token_id": 0} if task == "classification" else {}
    model: nn.Module = auto.from_pretrained(source.path, **extra).eval()
    return model


def layers(shared: SharedBackbone) -> dict[str, FrozenLinear]:
    return {name: module for name, module in shared.model.named_modules() if isinstance(module, FrozenLinear)}


def inputs() -> dict[str, Tensor]:
    ids = torch.randint(3, 90, (3, 8), generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


@pytest.mark.parametrize(("quantization", "double"), STORED)
@pytest.mark.parametrize(("kind", "task"), KINDS)
def test_quantization_error_is_within_its_bounds(
    sources: Callable[..., Source],
    share: Callable[..., SharedBackbone],
    kind: str,
    task: str,
    quantization: str,
    double: bool,
) -> None:
    original, shared = plain(sources(kind, task), task), share(kind, task, quantization, double)
    lowest, highest = ERRORS[quantization]
    frozen = layers(shared)
    assert len(frozen) == {"bert": 12, "llama": 14, "gpt2": 8}[kind]
    for name, layer in frozen.items():
        expected = matrix(module := original.get_submodule(name), module.weight.detach())
        assert layer.weight.shape == expected.shape == (layer.out_features, layer.in_features)
        error = ((layer.weight - expected).norm() / expected.norm()).item()
        assert lowest <= error <= highest, (name, error)
    rest = dict(shared.model.named_parameters())
    for name, parameter in original.named_parameters():
        if name in rest and not name.startswith(shared.fresh or ("\0",)):
            assert torch.equal(rest[name], parameter), f"{name} is kept exactly"


@pytest.mark.parametrize(("kind", "task"), KINDS)
def test_unquantized_backbone_has_the_logits_of_transformers(
    sources: Callable[..., Source], share: Callable[..., SharedBackbone], kind: str, task: str
) -> None:
    original, shared = plain(sources(kind, task), task), share(kind, task, "none")
    view = shared.view(3)
    for name in shared.fresh:
        original.get_submodule(name).load_state_dict(view.get_submodule(name).state_dict())
    with torch.no_grad():
        logits, expected = view(**inputs()).logits, original(**inputs()).logits
    if kind == "gpt2":  # addmm over a transposed weight sums in another order
        torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    else:
        assert torch.equal(logits, expected)


def test_double_quantization_is_smaller(sources: Callable[..., Source], tmp_path: Path) -> None:
    sizes = []
    for double in (True, False):
        packed = quantize(torch.randn(512, 512), "nf4", double)
        sizes.append(sum(t.numel() * t.element_size() for t in packed.tensors().values()))
    assert sizes[0] < 0.95 * sizes[1] < 0.06 * 512 * 512 * 4 * 2.5


@pytest.mark.parametrize(("quantization", "double"), STORED)
def test_weight_restores_from_its_parts(quantization: str, double: bool) -> None:
    weight = torch.randn(24, 64, generator=torch.Generator().manual_seed(2))
    packed = quantize(weight, quantization, double)  # type: ignore[arg-type]
    for parts in (packed.tensors(), packed.tensors() | packed.derived()):
        again = restore(parts, torch.float32)
        assert again.shape == packed.shape == (24, 64)
        assert torch.equal(again.dequantize(torch.float32), packed.dequantize(torch.float32))
    assert bool(packed.derived()) == (double and quantization in ("nf4", "fp4"))
    for name, tensor in packed.derived().items():
        twice = restore(packed.tensors() | {name: 2 * tensor}, torch.float32)
        assert torch.equal(twice.dequantize(torch.float32), 2 * packed.dequantize(torch.float32)), (
            "they are what is read"
        )


def test_tied_embeddings_stay_tied_and_are_stored_once(
    sources: Callable[..., Source], share: Callable[..., SharedBackbone], tmp_path: Path
) -> None:
    shared = share("llama", "causal-lm")
    model = shared.view(0)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    original = plain(sources("llama", "causal-lm"), "causal-lm")
    assert shared.parameters() == sum(p.numel() for p in original.parameters())


def test_backbone_file_header_reads_back(sources: Callable[..., Source], tmp_path: Path) -> None:
    file = tmp_path / "bert.safetensors"
    written = write(sources("bert"), AUTO_CLASSES["classification"], "nf4", True, file)
    assert Header.read(file) == written
    assert (written.head, written.auto_class) == (("classifier",), AUTO_CLASSES["classification"])
    body = plain(sources("bert"), "classification").base_model
    assert written.parameters == sum(p.numel() for p in body.parameters())
    shared = load(file, "classification", name="bert", dtype=torch.float32, labels=LABELS)
    assert shared.parameters() == written.parameters


@pytest.mark.parametrize(("quantization", "double"), STORED)
def test_frozen_linear_has_the_gradient_of_a_dense_layer(quantization: str, double: bool) -> None:
    """Against float64, which no error of the product itself survives in."""
    draw = torch.Generator().manual_seed(3)
    weight, bias = torch.randn(48, 64, generator=draw), torch.randn(48, generator=draw)
    packed = quantize(weight, quantization, double)  # type: ignore[arg-type]
    layer = FrozenLinear(packed, nn.Parameter(bias), torch.float32, 0)
    x = torch.randn(2, 5, 64, generator=draw, requires_grad=True)
    slope = torch.randn(2, 5, 48, generator=draw)
    y = layer(x)
    y.backward(slope)
    exact = packed.dequantize(torch.float32).double()
    torch.testing.assert_close(y.double(), x.double() @ exact.T + bias.double(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(x.grad.double(), slope.double() @ exact, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(layer.bias.grad, slope.sum((0, 1)))


def test_frozen_linear_keeps_the_inputs_dtype() -> None:
    packed = quantize(torch.randn(8, 64), "nf4", True)
    layer = FrozenLinear(packed, nn.Parameter(torch.zeros(8)), torch.bfloat16, 0)
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        x = torch.randn(3, 64, dtype=dtype, requires_grad=True)
        layer(x).sum().backward()
        assert layer(x).dtype == x.grad.dtype == dtype


def test_frozen_linear_weight_is_read_only() -> None:
    packed = quantize(torch.randn(8, 64), "none", False)
    layer = FrozenLinear(packed, None, torch.float32, 0)
    assert "weight" not in dict(layer.named_parameters())
    for value in (nn.Parameter(torch.zeros(8, 64)), torch.zeros(8, 64)):
        with pytest.raises((AttributeError, KeyError)):
            layer.weight = value


@pytest.mark.parametrize(("setting", "expected"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_compute_dtype_is_the_configured_one(setting: str, expected: torch.dtype) -> None:
    assert compute_dtype(setting, torch.device("cpu")) == expected


@pytest.mark.parametrize("fast", ["_is_avx512_bf16_supported", "_is_amx_tile_supported", ""])
def test_compute_dtype_auto_is_bfloat16_where_fast(fast: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda name=name: name == fast)
    assert compute_dtype("auto", torch.device("cpu")) == (torch.bfloat16 if fast else torch.float32)


@pytest.mark.parametrize("fast", [True, False])
def test_compute_dtype_auto_on_a_gpu_counts_no_emulation(fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """GPUs before Ampere multiply bfloat16 in software, and torch counts that as support by default."""
    supported = [True, fast]
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: supported[not including_emulation]
    )
    assert compute_dtype("auto", torch.device("cuda", 0)) == (torch.bfloat16 if fast else torch.float32)


@pytest.mark.parametrize(("pad_token", "ends", "padding"), [(None, [5, 6], 5), (None, 7, 7), (3, [5, 6], 3)])
def test_pad_token_defaults_to_the_end_token(pad_token: int | None, ends: Any, padding: int) -> None:
    config = transformers.LlamaConfig(pad_token_id=pad_token, eos_token_id=ends)
    pad(config)
    assert config.pad_token_id == padding


def test_missing_head_is_not_reported_as_warning(
    sources: Callable[..., Source], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    library = logging.getLogger("transformers")
    transformers.logging.set_verbosity_warning()
    library.addHandler(caplog.handler)
    try:
        write(sources("bert"), AUTO_CLASSES["classification"], "nf4", True, tmp_path / "backbone")
        assert caplog.records == []
        assert transformers.logging.get_verbosity() == logging.WARNING
    finally:
        library.removeHandler(caplog.handler)
