"""Trials that skip the frozen prefix against the same trials without it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import methods
from methods.base.spec import MethodError
from orchestrator.backbone.shared import SharedBackbone
from orchestrator.engine.activation_cache import ActivationCache
from orchestrator.engine.frozen_prefix import FrozenPrefix
from orchestrator.engine.step import train_step
from orchestrator.engine.trial_run import TrialRun

from .conftest import Lab, equal, state, train
from .fake_gpu import DEVICE, DeviceTensor, FakeDevice, plain_classifier

UPPER = {"layer_0": False}
DEPTHS: dict[str, tuple[dict[str, Any], int]] = {
    "linear_probe": ({}, 2),
    "last_layers": ({"fraction": 0.5}, 1),
    "compose:lora": (UPPER, 1),
    "compose:adapter+ia3": ({**UPPER, "adapter.bottleneck": 8}, 1),
    "lora": ({}, 0),
    "adapter": ({"bottleneck": 8}, 0),
    "bitfit": ({}, 0),
    "full": ({}, 0),
    "additive_prompt": ({}, 0),
    "norm_tuning": ({}, 0),
}


def run_with_prefix(lab: Lab, prefix: FrozenPrefix, method: str, number: int = 0, **changes: Any) -> TrialRun:
    return TrialRun(lab.job(method, number, **changes), lab.backbone, lab.dataset, lab.training, prefix=prefix)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Depth and rows of every pass through the prefix."""
    passes: list[tuple[int, int]] = []
    compute = FrozenPrefix._compute

    def counting_compute(prefix: FrozenPrefix, depth: int, inputs: dict[str, Tensor], real: Tensor, keys: Any) -> Any:
        passes.append((depth, len(real)))
        return compute(prefix, depth, inputs, real, keys)

    monkeypatch.setattr(FrozenPrefix, "_compute", counting_compute)
    return passes


@pytest.mark.parametrize("method", DEPTHS)
@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_frozen_prefix_depth_of_every_method(make_lab: Callable[[str], Lab], kind: str, method: str) -> None:
    lab, (changes, depth) = make_lab(kind), DEPTHS[method]
    try:
        view = lab.backbone.view(0)
        spec = methods.get(method)
        attached = spec.attach(view, spec.params_type.from_dict(changes), lab.backbone.context)
    except MethodError as error:
        pytest.skip(f"cannot sit here: {error}")
    assert FrozenPrefix(lab.backbone).depth(view, attached.active) == depth


@pytest.mark.parametrize("method", ["linear_probe", "last_layers", "compose:lora", "compose:adapter+ia3", "prompt"])
@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_frozen_prefix_keeps_losses_and_scores(make_lab: Callable[[str], Lab], kind: str, method: str) -> None:
    """Over several epochs with dropout: rows come from the cache, in other batches with other padding."""
    lab, changes = make_lab(kind), DEPTHS.get(method, ({}, 0))[0]
    full = lab.run(method, batch_size=8, **changes)
    skipping = run_with_prefix(lab, FrozenPrefix(lab.backbone), method, batch_size=8, **changes)
    for loss, expected_loss in zip(train(skipping, 12), train(full, 12), strict=True):  # 96 rows of 40
        assert loss == pytest.approx(expected_loss, rel=1e-6 if kind == "encoder" else 1e-5)
    for split in ("validation", "test"):
        expected, scored = (run.evaluate(split).predictions["probabilities"] for run in (full, skipping))
        assert scored.combine_chunks().flatten().to_numpy() == pytest.approx(
            expected.combine_chunks().flatten().to_numpy(), abs=1e-5
        )


def test_frozen_prefix_computes_a_row_once(lab: Lab, passes: list[tuple[int, int]]) -> None:
    prefix = FrozenPrefix(lab.backbone)
    skipping, packed_run = (
        run_with_prefix(lab, prefix, "linear_probe", batch_size=8),
        run_with_prefix(lab, prefix, "linear_probe", 1),
    )
    train(skipping, 12)  # more than two epochs
    skipping.evaluate("validation")
    assert sum(rows for _, rows in passes) == 40 + 40
    train(packed_run, 3)
    packed_run.evaluate("validation")
    assert sum(rows for _, rows in passes) == 40 + 40


def test_frozen_prefix_is_computed_once_per_pack(lab: Lab, passes: list[tuple[int, int]]) -> None:
    prefix = FrozenPrefix(lab.backbone, limit_bytes=20_000)  # less than an epoch
    runs = [run_with_prefix(lab, prefix, "linear_probe", number, batch_size=4) for number in range(3)]
    alone = [lab.run("linear_probe", number, batch_size=4) for number in range(3)]
    for run in alone:
        train(run, 4)
    for _ in range(4):
        assert train_step(runs) == []
    assert passes == [(2, 4)] * 4
    for alone_run, packed_run in zip(alone, runs, strict=True):
        for name, value in state(alone_run).items():
            torch.testing.assert_close(state(packed_run)[name], value, rtol=1e-5, atol=1e-7, msg=name)


def test_frozen_prefix_caches_smaller_depths_on_the_way(lab: Lab, passes: list[tuple[int, int]]) -> None:
    prefix = FrozenPrefix(lab.backbone)
    lower = run_with_prefix(lab, prefix, "last_layers", fraction=0.5)
    train(lower, 1)
    upper = run_with_prefix(lab, prefix, "linear_probe", batch_size=9)
    train(upper, 1)
    train(lower, 2)
    assert [depth for depth, _ in passes] == [1, 2]


def test_skip_prefix_runs_other_calls_in_full(lab: Lab, passes: list[tuple[int, int]]) -> None:
    """Outside of training and scoring, and with other arguments."""
    skipping = run_with_prefix(lab, FrozenPrefix(lab.backbone), "linear_probe")
    batch = lab.dataset.median_length_batch(3)
    rows = {name: batch[name] for name in ("input_ids", "attention_mask")}
    skipping.attached.train(False)
    expected = lab.run("linear_probe").attached.module.eval()(**rows).logits
    assert torch.equal(skipping.attached.module(**rows).logits, expected)
    assert skipping._skip_prefix is not None
    with torch.no_grad(), skipping._skip_prefix.enabled():
        embedded = lab.backbone.model.get_input_embeddings()(batch["input_ids"])
        logits = skipping.attached.module(inputs_embeds=embedded, attention_mask=batch["attention_mask"]).logits
    torch.testing.assert_close(logits, expected)
    assert passes == []


def test_skip_prefix_forgets_its_state_after_an_error(lab: Lab) -> None:
    skipping, full = run_with_prefix(lab, FrozenPrefix(lab.backbone), "linear_probe"), lab.run("linear_probe")
    head = skipping.attached.module.get_submodule("classifier")
    handle = head.register_forward_pre_hook(_fail)
    with pytest.raises(RuntimeError, match="out of luck"):
        skipping.forward()
    handle.remove()
    skipping.rewind()
    batch = lab.dataset.median_length_batch(3)
    rows = {name: batch[name] for name in ("input_ids", "attention_mask")}
    assert torch.equal(skipping.attached.module(**rows).logits, full.attached.module(**rows).logits)
    assert train(skipping, 2) == pytest.approx(train(full, 2), rel=1e-6)


def test_frozen_prefix_leaves_the_backbone_unchanged(lab: Lab) -> None:
    before, hooks = lab.backbone.checksum(), _hooks(lab.backbone.model)
    train(run_with_prefix(lab, FrozenPrefix(lab.backbone), "last_layers", fraction=0.5), 3)
    assert lab.backbone.checksum() == before
    assert _hooks(lab.backbone.model) == hooks


def test_activation_cache_drops_entries_at_its_limit() -> None:
    cache = ActivationCache(100)
    for key in range(50):
        cache.put(key, torch.zeros(5))
        assert cache.bytes <= 100
    keys = [key for key in range(50) if cache.get(key) is not None]
    assert len(keys) == 5
    cache.put("large", torch.zeros(26))
    assert cache.get("large") is None
    assert [key for key in range(50) if cache.get(key) is not None] == keys, "a tensor above the limit drops no entry"


def test_frozen_prefix_works_for_a_restored_trial(lab: Lab, tmp_path: Any) -> None:
    prefix = FrozenPrefix(lab.backbone)
    straight = run_with_prefix(lab, prefix, "last_layers", fraction=0.5)
    train(straight, 12)
    first = run_with_prefix(lab, prefix, "last_layers", fraction=0.5, stop=5)
    train(first, 5)
    first.save(tmp_path, resumable=True)
    again = run_with_prefix(lab, prefix, "last_layers", fraction=0.5, start=5)
    again.restore(tmp_path)
    train(again, 7)
    assert equal(state(again), state(straight))


def _fail(*_: object) -> None:
    raise RuntimeError("out of luck")


def _hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


@pytest.mark.parametrize("on_device", [False, True])
def test_frozen_prefix_computes_on_the_models_device(lab: Lab, on_device: bool) -> None:
    """Packed steps pass batches as the dataset makes them, on the processor; views pass what is on their device."""
    model = plain_classifier()
    ids = torch.randint(3, 60, (3, 5))
    mask = torch.ones_like(ids).tril(2)
    context = replace(lab.backbone.context, head=())
    expected = FrozenPrefix(SharedBackbone(model, context, (), False)).activations(1, ids, mask)
    with FakeDevice():
        prefix = FrozenPrefix(SharedBackbone(model.to(DEVICE), context, (), False))
        for _ in range(2):  # computed, then from the cache
            batch = (ids.to(DEVICE), mask.to(DEVICE)) if on_device else (ids, mask)
            activations = prefix.activations(1, *batch)
            assert isinstance(activations, DeviceTensor)
            torch.testing.assert_close(activations.cpu(), expected)
