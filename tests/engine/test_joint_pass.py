"""Joint passes through the body of the backbone against the same trials alone."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

import methods
from orchestrator.engine.joint_pass import JointPasses
from orchestrator.engine.pack_site import Site
from orchestrator.engine.pack_view import PackView
from orchestrator.engine.packing import in_lockstep
from orchestrator.engine.step import train_step
from orchestrator.engine.trial_run import TrialRun

from .conftest import Lab, state, train
from .test_packing import fitting

RANKS = (4, 8, 16, 2)
PACKS: dict[str, tuple[tuple[str, dict[str, Any]], ...]] = {
    "lora of many ranks": tuple(("lora", {"rank": rank, "dropout": 0.0}) for rank in RANKS),
    "lora with and without dropout": (("lora", {}), ("lora", {"dropout": 0.0}), ("lora", {"dropout": 0.0, "rank": 2})),
    "rows that differ": tuple(("lora", {"rank": 4, "dropout": 0.0, "batch_size": size}) for size in (2, 3, 5)),
    "lora at other layers": (
        ("lora", {"dropout": 0.0, "targets": "attention_qv"}),
        ("lora", {"dropout": 0.0, "targets": "feed_forward", "alpha_ratio": 0.5, "rslora": True}),
        ("lora", {"dropout": 0.0, "lr_ratio": 8.0}),
    ),
    "mixed": tuple(
        (method, {}) for method in ("lora", "ia3", "adapter", "norm_tuning", "dora", "prefix", "prompt", "p_tuning")
    ),
}


def begin(lab: Lab, pack: Sequence[tuple[str, dict[str, Any]]]) -> list[TrialRun]:
    return [lab.run(method, number, **changes) for number, (method, changes) in enumerate(pack)]


def gradients(run: TrialRun) -> dict[str, Tensor]:
    return {n: p.grad.clone() for n, p in run.attached.trainable().items() if p.grad is not None}


def assert_steps_agree(lab: Lab, pack: Sequence[tuple[str, dict[str, Any]]], steps: int = 2) -> None:
    """Compare losses and gradients of joint steps with those of the same trials alone."""
    alone, together = begin(lab, pack), begin(lab, pack)
    for _ in range(steps):
        joint = JointPasses(together)
        calls = in_lockstep([run.forward for run in together], joint=joint)
        torch.stack([call.result for call in calls if call.result is not None]).sum().backward()
        joint.write_gradients()
        for (method, _), solo, run, call in zip(pack, alone, together, calls, strict=True):
            loss = solo.forward()
            loss.backward()
            assert call.error is None, method
            assert call.result is not None
            torch.testing.assert_close(call.result, loss, rtol=1e-4, atol=1e-6, msg=method)
            expected, results = gradients(solo), gradients(run)
            assert results.keys() == expected.keys(), method
            for name, gradient in expected.items():
                scale = gradient.abs().max().item()
                atol = 1e-4 * scale + 1e-9
                torch.testing.assert_close(results[name], gradient, rtol=1e-4, atol=atol, msg=f"{method}: {name}")
            solo.finish_step(loss)
            run.finish_step(call.result)


@pytest.mark.parametrize("pack", PACKS.values(), ids=PACKS)
@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_joint_steps_have_losses_and_gradients_of_solo_steps(
    make_lab: Callable[[str], Lab], kind: str, pack: tuple[tuple[str, dict[str, Any]], ...]
) -> None:
    assert_steps_agree(make_lab(kind), pack)


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_joint_steps_of_all_methods_agree(make_lab: Callable[[str], Lab], kind: str) -> None:
    lab = make_lab(kind)
    assert_steps_agree(lab, [(method, {}) for method in fitting(lab, kind, methods.names())])
