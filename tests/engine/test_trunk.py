"""Trials above shared lower blocks against the same trials without."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import methods
from methods.base.spec import MethodError
from orchestrator.engine.activation_cache import ActivationCache
from orchestrator.engine.frozen_prefix import FrozenPrefix
from orchestrator.engine.step import step
from orchestrator.engine.trial_run import TrialRun

from .conftest import Lab, equal, state, train

UPPER = {"layer_0": False}
LEVELS: dict[str, tuple[dict[str, Any], int]] = {
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


def above(lab: Lab, prefix: FrozenPrefix, method: str, number: int = 0, **changes: Any) -> TrialRun:
    return TrialRun(lab.job(method, number, **changes), lab.backbone, lab.rows, lab.training, prefix=prefix)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Level and rows of every pass that a trunk makes."""
    made: list[tuple[int, int]] = []
    computed = FrozenPrefix._computed

    def counted(prefix: FrozenPrefix, level: int, ids: Tensor, real: Tensor, tokens: Any) -> Any:
        made.append((level, len(ids)))
        return computed(prefix, level, ids, real, tokens)

    monkeypatch.setattr(FrozenPrefix, "_computed", counted)
    return made


@pytest.mark.parametrize("method", LEVELS)
@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_what_a_method_leaves_alone(make_lab: Callable[[str], Lab], kind: str, method: str) -> None:
    lab, (changes, level) = make_lab(kind), LEVELS[method]
    try:
        view = lab.backbone.view(0)
        spec = methods.get(method)
        attached = spec.attach(view, spec.params_type.from_dict(changes), lab.backbone.context)
    except MethodError as error:
        pytest.skip(f"cannot sit here: {error}")
    assert FrozenPrefix(lab.backbone).level(view, attached.active) == level


@pytest.mark.parametrize("method", ["linear_probe", "last_layers", "compose:lora", "compose:adapter+ia3", "prompt"])
@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_losses_and_scores_are_those_of_the_whole_model(make_lab: Callable[[str], Lab], kind: str, method: str) -> None:
    """Over several epochs, dropout on: rows come from the trunk's memory, in other batches with other padding."""
    lab, changes = make_lab(kind), LEVELS.get(method, ({}, 0))[0]
    whole = lab.run(method, batch_size=8, **changes)
    active = above(lab, FrozenPrefix(lab.backbone), method, batch_size=8, **changes)
    for found, loss in zip(train(active, 12), train(whole, 12), strict=True):  # 96 rows of 40
        assert found == pytest.approx(loss, rel=1e-6 if kind == "encoder" else 1e-5)
    for split in ("validation", "test"):
        expected, scored = (run.evaluate(split).predictions["probabilities"] for run in (whole, active))
        assert scored.combine_chunks().flatten().to_numpy() == pytest.approx(
            expected.combine_chunks().flatten().to_numpy(), abs=1e-5
        )


def test_a_row_passes_the_trunk_once(lab: Lab, passes: list[tuple[int, int]]) -> None:
    prefix = FrozenPrefix(lab.backbone)
    active, other = above(lab, prefix, "linear_probe", batch_size=8), above(lab, prefix, "linear_probe", 1)
    train(active, 12)  # more than two epochs
    active.evaluate("validation")
    assert sum(rows for _, rows in passes) == 40 + 40
    train(other, 3)
    other.evaluate("validation")
    assert sum(rows for _, rows in passes) == 40 + 40


def test_trials_of_a_pack_share_the_pass(lab: Lab, passes: list[tuple[int, int]]) -> None:
    prefix = FrozenPrefix(lab.backbone, most=20_000)  # not even an epoch
    runs = [above(lab, prefix, "linear_probe", number, batch_size=4) for number in range(3)]
    alone = [lab.run("linear_probe", number, batch_size=4) for number in range(3)]
    for run in alone:
        train(run, 4)
    for _ in range(4):
        assert step(runs) == []
    assert passes == [(2, 4)] * 4
    for one, other in zip(alone, runs, strict=True):
        for name, value in state(one).items():
            torch.testing.assert_close(state(other)[name], value, rtol=1e-5, atol=1e-7, msg=name)


def test_a_higher_level_s_pass_serves_the_lower_ones(lab: Lab, passes: list[tuple[int, int]]) -> None:
    prefix = FrozenPrefix(lab.backbone)
    lower = above(lab, prefix, "last_layers", fraction=0.5)
    train(lower, 1)
    upper = above(lab, prefix, "linear_probe", batch_size=9)
    train(upper, 1)
    train(lower, 2)
    assert [level for level, _ in passes] == [1, 2]


def test_other_calls_are_whole(lab: Lab, passes: list[tuple[int, int]]) -> None:
    """Outside of training and scoring, and with anything but rows."""
    active = above(lab, FrozenPrefix(lab.backbone), "linear_probe")
    batch = lab.rows.typical(3)
    rows = {name: batch[name] for name in ("input_ids", "attention_mask")}
    active.attached.train(False)
    expected = lab.run("linear_probe").attached.module.eval()(**rows).logits
    assert torch.equal(active.attached.module(**rows).logits, expected)
    assert active._skip_prefix is not None
    with torch.no_grad(), active._skip_prefix.active():
        embedded = lab.backbone.model.get_input_embeddings()(batch["input_ids"])
        found = active.attached.module(inputs_embeds=embedded, attention_mask=batch["attention_mask"]).logits
    torch.testing.assert_close(found, expected)
    assert passes == []


def test_an_error_above_leaves_nothing_for_the_next_call(lab: Lab) -> None:
    active, whole = above(lab, FrozenPrefix(lab.backbone), "linear_probe"), lab.run("linear_probe")
    head = active.attached.module.get_submodule("classifier")
    handle = head.register_forward_pre_hook(_fail)
    with pytest.raises(RuntimeError, match="out of luck"):
        active.forward()
    handle.remove()
    active.rewind()
    batch = lab.rows.typical(3)
    rows = {name: batch[name] for name in ("input_ids", "attention_mask")}
    assert torch.equal(active.attached.module(**rows).logits, whole.attached.module(**rows).logits)
    assert train(active, 2) == pytest.approx(train(whole, 2), rel=1e-6)


def test_the_backbone_stays_as_it_was(lab: Lab) -> None:
    before, hooks = lab.backbone.checksum(), _hooks(lab.backbone.model)
    train(above(lab, FrozenPrefix(lab.backbone), "last_layers", fraction=0.5), 3)
    assert lab.backbone.checksum() == before
    assert _hooks(lab.backbone.model) == hooks


def test_states_go_where_there_is_no_room() -> None:
    kept = ActivationCache(100)
    for key in range(50):
        kept.put(key, torch.zeros(5))
        assert kept.bytes <= 100
    held = [key for key in range(50) if kept.get(key) is not None]
    assert len(held) == 5
    kept.put("large", torch.zeros(26))
    assert kept.get("large") is None
    assert [key for key in range(50) if kept.get(key) is not None] == held, "it is not worth all others"


def test_continued_trials_meet_the_trunk_again(lab: Lab, tmp_path: Any) -> None:
    prefix = FrozenPrefix(lab.backbone)
    straight = above(lab, prefix, "last_layers", fraction=0.5)
    train(straight, 12)
    first = above(lab, prefix, "last_layers", fraction=0.5, stop=5)
    train(first, 5)
    first.save(tmp_path, resumable=True)
    again = above(lab, prefix, "last_layers", fraction=0.5, start=5)
    again.restore(tmp_path)
    train(again, 7)
    assert equal(state(again), state(straight))


def _fail(*_: object) -> None:
    raise RuntimeError("out of luck")


def _hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())
