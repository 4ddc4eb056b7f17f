"""AdamW in 8 bits: when its state goes into pages, and that trials leave no pages behind."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from bitsandbytes import functional
from bitsandbytes.functional import GlobalPageManager
from bitsandbytes.optim import AdamW8bit, PagedAdamW8bit
from torch import nn

from orchestrator.engine import paged_adamw
from orchestrator.engine.paged_adamw import PagePool, adamw_8bit, paged_adamw_8bit

SHAPES = ((400, 400), (400, 300), (8, 8))


@pytest.fixture
def allocated(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, ...]]]:
    """Stand in for CUDA's managed memory, and return the shapes of all pages that were ever allocated."""
    shapes: list[tuple[int, ...]] = []

    def get_paged(*shape: int, dtype: torch.dtype, device: torch.device) -> Any:
        shapes.append(shape)
        pages: Any = torch.empty(shape, dtype=dtype).fill_(1)
        pages.is_paged, pages.page_deviceid = True, device.index
        return pages

    monkeypatch.setattr(functional, "get_paged", get_paged)
    monkeypatch.setattr(functional, "fill", lambda pages, value: pages.fill_(value))
    monkeypatch.setattr(paged_adamw, "POOL", PagePool())
    yield shapes
    gc.collect()
    assert not GlobalPageManager.get_instance().paged_tensors


def on_device() -> list[dict[str, Any]]:
    return [{"params": [nn.Parameter(torch.empty(shape, device="meta")) for shape in SHAPES]}]


def states(optimizer: Any) -> list[torch.Tensor]:
    """Return both states of every parameter, as the optimizer makes them at its first step."""
    buffers = []
    for parameter in optimizer.param_groups[0]["params"]:
        buffers += [optimizer.get_state_buffer(parameter, dtype=torch.uint8) for _ in range(2)]
    return buffers


@pytest.mark.usefixtures("allocated")
def test_paged_adamw_is_for_short_memory_only() -> None:
    state_bytes = 2 * sum(torch.Size(shape).numel() for shape in SHAPES)
    enough = state_bytes / paged_adamw.FREE_MEMORY_FRACTION
    assert type(adamw_8bit(on_device(), 0.1, enough)) is AdamW8bit
    short = adamw_8bit(on_device(), 0.1, enough - 10)
    assert type(short) is PagedAdamW8bit
    assert short.param_groups[0]["weight_decay"] == 0.1


def test_paged_adamw_leaves_no_pages_to_later_trials(allocated: list[tuple[int, ...]]) -> None:
    for _ in range(5):
        optimizer = paged_adamw_8bit(on_device(), 0.0)
        buffers = states(optimizer)
        assert [tuple(buffer.shape) for buffer in buffers] == [shape for shape in SHAPES for _ in range(2)]
        assert all(buffer.is_paged for buffer in buffers[:4])  # type: ignore[attr-defined]
        assert not any(buffer.any() for buffer in buffers[:4]), "another trial's state"
        for buffer in buffers[:4]:
            buffer.fill_(7)
        assert len(GlobalPageManager.get_instance().paged_tensors) == 4
        del optimizer, buffers, buffer  # at once, without the garbage collector
    assert allocated == [(400, 400)] * 2 + [(400, 300)] * 2


def test_paged_adamw_of_two_trials_shares_no_pages(allocated: list[tuple[int, ...]]) -> None:
    first, second = (paged_adamw_8bit(on_device(), 0.0) for _ in range(2))
    pages = {buffer.data_ptr() for optimizer in (first, second) for buffer in states(optimizer)[:4]}
    assert len(pages) == len(allocated) == 8
