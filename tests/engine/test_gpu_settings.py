"""Settings for GPUs where the processor can show them: precision of trainable products, attention."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from orchestrator.backbone.shared import load
from orchestrator.common.errors import InputError
from orchestrator.config import GpuSettings
from orchestrator.engine.trial_run import TrialRun

from .conftest import LABELS, Lab, train

METHODS: dict[str, dict[str, Any]] = {
    "lora": {"dropout": 0.0},
    "qlora": {"dropout": 0.0},
    "adapter": {"dropout": 0.0, "bottleneck": 8},
}


def run_in(lab: Lab, method: str, dtype: torch.dtype) -> TrialRun:
    backbone = replace(lab.backbone, context=replace(lab.backbone.context, product_dtype=dtype))
    return TrialRun(lab.job(method, **METHODS[method]), backbone, lab.dataset, lab.training)


@pytest.mark.parametrize("method", METHODS)
def test_bfloat16_products_train_like_float32_ones(lab: Lab, method: str) -> None:
    exact, narrow = run_in(lab, method, torch.float32), run_in(lab, method, torch.bfloat16)
    expected, losses = train(exact, 6), train(narrow, 6)
    assert losses == pytest.approx(expected, rel=2e-2)
    assert losses[1:] != expected[1:], "nothing was multiplied in bfloat16"
    assert all(parameter.dtype == torch.float32 for parameter in narrow.parameters)
    moments = [state["exp_avg"].dtype for state in narrow._optimizer.state.values()]
    assert set(moments) == {torch.float32}


def test_gpu_settings_change_nothing_on_a_processor(lab: Lab) -> None:
    settings = GpuSettings(trainable_products="bfloat16", keep_unpacked="weights", four_bit_generation=True)
    backbone = loaded(lab, gpu=settings)
    assert backbone.context.product_dtype == torch.float32
    assert backbone.fingerprint() == loaded(lab).fingerprint()
    assert torch.get_float32_matmul_precision() == "highest"


def test_attention_implementation_is_the_configured_one(lab: Lab) -> None:
    names = [loaded(lab, attention=name).model.config._attn_implementation for name in ("auto", "sdpa", "eager")]
    assert names == ["sdpa", "sdpa", "eager"]


def test_attention_that_is_not_available_is_refused_in_one_line(lab: Lab) -> None:
    with pytest.raises(InputError) as raised:
        loaded(lab, attention="flash_attention_2")
    [line] = raised.value.lines()
    assert "backbone.attention" in line
    assert "is flash_attention_2, which bert cannot use here" in line
    assert line.endswith("write auto")


def loaded(lab: Lab, **settings: Any) -> Any:
    file = lab.folder / "tiny.safetensors"
    return load(file, "classification", name="tiny", dtype=torch.float32, labels=LABELS, **settings)
