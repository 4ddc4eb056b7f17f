"""What a GPU keeps unpacked, and its 4-bit kernel: the same code on the processor, which has them all."""

from __future__ import annotations

import copy
import logging
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from orchestrator.backbone import gpu
from orchestrator.backbone.frozen import FrozenLinear
from orchestrator.backbone.weights import FourBitWeight, PlainWeight, quantize
from orchestrator.config import GpuSettings

MANY = 1e12


@pytest.fixture(params=["nf4", "fp4", "int8", "none"])
def model(request: pytest.FixtureRequest) -> Any:
    """Return two frozen layers as a GPU has them at first: 4-bit weights without unpacked scales."""
    generator = torch.Generator().manual_seed(0)
    layers = []
    for position, bias in enumerate((None, nn.Parameter(torch.randn(128, generator=generator), requires_grad=False))):
        weight = quantize(torch.randn(128, 128, generator=generator), request.param, True)
        if isinstance(weight, FourBitWeight):
            weight = replace(weight, scales=None)
            weight.compute_in(torch.bfloat16)
        layers.append(FrozenLinear(weight, bias, torch.bfloat16, position))
    return nn.Sequential(*layers)


def outputs(model: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(5, 128, generator=torch.Generator().manual_seed(1)).requires_grad_()
    y = model(x)
    y.square().sum().backward()
    assert x.grad is not None
    return y.detach(), x.grad


@pytest.mark.parametrize("keep_unpacked", ["scales", "weights"])
def test_gpu_settings_keep_unpacked_changes_no_bit(model: Any, keep_unpacked: Any) -> None:
    before, weights = outputs(model), [layer.weight for layer in model]
    gpu.apply(GpuSettings(keep_unpacked=keep_unpacked), model, MANY)
    assert all(torch.equal(a, b) for a, b in zip(before, outputs(model), strict=True))
    assert all(torch.equal(a, layer.weight) for a, layer in zip(weights, model, strict=True))


def test_gpu_settings_keep_what_they_say(model: Any) -> None:
    is_four_bit, is_plain = isinstance(model[0].frozen, FourBitWeight), isinstance(model[0].frozen, PlainWeight)
    with_scales, with_weights = copy.deepcopy(model), copy.deepcopy(model)
    gpu.apply(GpuSettings(), model, MANY)
    gpu.apply(GpuSettings(keep_unpacked="scales"), with_scales, MANY)
    gpu.apply(GpuSettings(keep_unpacked="weights"), with_weights, MANY)
    assert model[0].frozen.derived() == {}
    assert set(with_scales[0].frozen.derived()) == ({"scales"} if is_four_bit else set())
    dense = with_weights[0].frozen.dequantize(torch.bfloat16)
    assert (with_weights[0].frozen.dequantize(torch.bfloat16) is dense) is (not is_plain)
    assert ("dense" in with_weights[0].frozen.derived()) is (not is_plain), "the fingerprint covers it"
    assert with_weights[0].frozen.quantization == model[0].frozen.quantization
    assert with_weights[0].frozen.shape == (128, 128)
    assert with_weights[0].frozen.tensors().keys() == model[0].frozen.tensors().keys()


@pytest.mark.parametrize("model", ["nf4"], indirect=True)
def test_gpu_settings_keep_scales_where_weights_do_not_fit(model: Any, caplog: pytest.LogCaptureFixture) -> None:
    needed = 2 * 128 * 128 * 2
    with caplog.at_level(logging.WARNING):
        gpu.apply(GpuSettings(keep_unpacked="weights"), model, 2 * needed - 1)
    assert set(model[0].frozen.derived()) == {"scales"}
    assert "only scales are kept" in caplog.text
    gpu.apply(GpuSettings(keep_unpacked="weights"), model, 2 * needed)
    assert set(model[0].frozen.derived()) == {"scales", "dense"}


@pytest.mark.parametrize("model", ["nf4", "fp4"], indirect=True)
@pytest.mark.parametrize("keep_unpacked", ["nothing", "scales", "weights"])
def test_gpu_settings_generate_with_the_four_bit_kernel(
    model: Any, keep_unpacked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a processor the kernel unpacks and multiplies, so that its result is the same."""
    calls: list[int] = []
    kernel = FourBitWeight.matmul
    monkeypatch.setattr(FourBitWeight, "matmul", lambda self, x, bias: calls.append(len(x)) or kernel(self, x, bias))
    few, many = torch.randn(gpu.FUSED_ROWS, 128), torch.randn(gpu.FUSED_ROWS + 1, 128)
    expected = model(few)
    with torch.no_grad():
        assert torch.equal(model(few), expected)
    assert not calls, "nobody asked for it"
    gpu.apply(GpuSettings(four_bit_generation=True, keep_unpacked=keep_unpacked), model, MANY)
    with torch.no_grad():
        assert torch.equal(model(few), expected)
        assert calls == [gpu.FUSED_ROWS] * 2
        model(many)
    model(few.requires_grad_()).sum().backward()
    assert calls == [gpu.FUSED_ROWS] * 2, "it has no gradients, and is slower for many rows"
