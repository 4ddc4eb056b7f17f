"""The fingerprint shows a change of any byte that trials share, however large the backbone and on any device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from orchestrator.backbone import shared as shared_module
from orchestrator.backbone.byte_sum import byte_sum
from orchestrator.backbone.shared import SharedBackbone
from tests.engine.fake_gpu import DeviceTensor, FakeDevice


def _byte(words: Tensor) -> None:
    raw = words.view(torch.uint8).view(-1)
    raw[len(raw) // 2 + 1] ^= 1


def _row(words: Tensor) -> None:
    words[2].neg_()


def _column(words: Tensor) -> None:
    words[:, 1] += 1


@pytest.mark.parametrize("change", [_byte, _row, _column])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("shape", [(9, 64), (5, 3)])
def test_fingerprint_sum_shows_one_byte_row_or_column(
    change: Callable[[Tensor], None], dtype: torch.dtype, shape: tuple[int, int]
) -> None:
    words = torch.randint(1, 100, shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    before = byte_sum(words)
    changed = words.clone()
    change(changed)
    assert not torch.equal(byte_sum(changed), before)
    assert torch.equal(byte_sum(words), before)


@pytest.mark.parametrize("begin", range(9))
@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 30])
def test_fingerprint_sum_counts_every_byte_of_a_slice(begin: int, length: int) -> None:
    memory = torch.randint(0, 255, (64,), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    piece = memory[begin : begin + length]
    before = byte_sum(piece)
    for position in range(64):
        memory[position] += 1
        inside = begin <= position < begin + length
        assert torch.equal(byte_sum(piece), before) != inside, position
        memory[position] -= 1


def test_fingerprint_sums_are_computed_on_the_device() -> None:
    """One number per tensor comes back, and not its bytes."""
    words = torch.randn(300, 70)
    with FakeDevice():
        on_device = byte_sum(words.to("meta"))
        assert isinstance(on_device, DeviceTensor)
        assert torch.equal(torch.stack([on_device]).cpu(), torch.stack([byte_sum(words)]))


def test_fingerprint_covers_every_tensor_that_a_pass_reads(share: Callable[..., SharedBackbone]) -> None:
    """Of a backbone so large that its checksum samples it."""
    backbone = share("llama", "causal-lm")
    layer: Any = next(layer for layer in backbone.model.modules() if hasattr(layer, "frozen"))
    state = layer.frozen.state
    read = [layer.frozen.packed, layer.frozen.scales, state.absmax, state.code, state.offset, state.state2.absmax]
    read += [state.state2.code, backbone.model.get_input_embeddings().weight]
    before = backbone.fingerprint()
    for tensor in read:
        raw = tensor.detach().view(-1).view(torch.uint8)
        for position in {0, 1, len(raw) // 3, len(raw) - 1}:
            raw[position] ^= 1
            assert backbone.fingerprint() != before
            raw[position] ^= 1
    assert backbone.fingerprint() == before


def test_checksum_is_a_sample_above_its_limit_and_the_fingerprint_is_not(
    share: Callable[..., SharedBackbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_module, "COMPLETE_CHECKSUM_BYTES", 0)
    monkeypatch.setattr(shared_module, "SAMPLE_BYTES", 16)
    backbone = share("bert")
    checksum, fingerprint = backbone.checksum(), backbone.fingerprint()
    weight: Any = backbone.model.get_input_embeddings().weight
    with torch.no_grad():
        weight.view(-1).view(torch.uint8)[1] += 1
    assert backbone.checksum() == checksum
    assert backbone.fingerprint() != fingerprint
