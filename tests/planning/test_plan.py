"""Plans of sweeps: what a plan says about methods equals what lanes do."""

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import methods
from methods.base.spec import MethodError, TaskText
from orchestrator.backbone.checkpoint import write
from orchestrator.backbone.shared import load
from orchestrator.cli.output.methods import capabilities, method_row
from orchestrator.cli.output.plan import plan_json
from orchestrator.common.errors import InputError
from orchestrator.config import SweepConfig
from orchestrator.planning.plan import SweepPlan, make_plan
from orchestrator.search.space import resolve as resolve_space

SIZES: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
SIZES |= {"vocab_size": 60, "max_position_embeddings": 96, "pad_token_id": 0}
CLASSES = ("bad", "fine", "good")
CLASSIFICATION = {"type": "classification", "text": "text", "label": "label", "data": "rows.csv"}
CAUSAL = {"type": "causal-lm", "prompt": "{text}:", "completion": " {label}", "data": "rows.csv"}

Planner = Callable[..., SweepPlan]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two checkpoints and rows."""
    place = tmp_path_factory.mktemp("plan")
    rows = [f"text number {row},{CLASSES[row % 3]}" for row in range(60)]
    (place / "rows.csv").write_text("\n".join(["text,label", *rows]))
    torch.manual_seed(0)
    BertModel(BertConfig(**SIZES)).save_pretrained(place / "encoder")
    LlamaForCausalLM(LlamaConfig(**SIZES)).save_pretrained(place / "decoder")
    for name in ("encoder", "decoder"):
        words = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1}, unk_token="[UNK]"))
        PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]").save_pretrained(place / name)
    return place


@pytest.fixture(scope="module")
def planned(folder: Path) -> Planner:
    def make(model: str, task: dict[str, Any], **changes: Any) -> SweepPlan:
        values = {"backbone": {"model": model}, "tasks": {"mail": task}, "budget": {"trials": 2}}
        values |= {"training": {"max_length": 64}, **changes}
        return make_plan(SweepConfig.model_validate(values, context={"base": folder}))

    return make


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "task", "labels"),
    [("encoder", CLASSIFICATION, 3), ("decoder", CLASSIFICATION, 3), ("decoder", CAUSAL, 0)],
)
def test_plan_counts_equal_a_real_attachment(
    planned: Planner, tmp_path: Path, model: str, task: dict[str, Any], labels: int
) -> None:
    plan = planned(model, task, training={"max_length": 48})
    kind = plan.tasks["mail"].type
    write(plan.source, kind.auto_class, "nf4", True, tmp_path / "frozen.safetensors")
    write(plan.source, kind.auto_class, "none", True, tmp_path / "original.safetensors")
    shared = load(
        tmp_path / "frozen.safetensors",
        kind.name,
        name=model,
        dtype=torch.float32,
        labels=labels,
        original=tmp_path / "original.safetensors",
    )
    assert plan.parameters == shared.parameters()
    words = TaskText(
        tokenizer=plan.tokenizer, labels=CLASSES[:labels], max_length=48, examples=lambda count: [([5, 6], 0)] * count
    )
    context = replace(shared.context, text=words)
    for method_plan in plan.tasks["mail"].methods:
        spec = methods.get(method_plan.method)
        params = spec.params_type.from_dict(method_plan.space.default)
        if not method_plan.available:
            with pytest.raises(
                MethodError, match=re.escape(method_plan.reason) if kind.peft_task_type in spec.tasks else None
            ):
                spec.attach(shared.view(0), params, context)
            continue
        attached = spec.attach(shared.view(0), params, context)
        count = sum(parameter.numel() for parameter in attached.trainable().values())
        assert method_plan.trainable == count, method_plan.method
        assert method_plan.percent == pytest.approx(100 * count / shared.parameters()), method_plan.method
        assert method_plan.mergeable == (attached.merge is not None)
    assert {method_plan.method for method_plan in plan.tasks["mail"].methods} == set(methods.names())


def test_plan_reads_no_weights(planned: Planner, folder: Path) -> None:
    checkpoint = folder / "torso"
    shutil.copytree(folder / "encoder", checkpoint)
    save_file({"none": torch.zeros(1)}, checkpoint / "model.safetensors")
    plan = planned("torso", CLASSIFICATION, methods=["lora"])
    assert plan.parameters == BertModel.from_pretrained(folder / "encoder").num_parameters()


def test_plan_leaves_out_unsuited_method_with_a_reason(planned: Planner) -> None:
    plan = planned("decoder", CAUSAL, methods=["linear_probe", "lora"])
    probe, lora = plan.tasks["mail"].methods
    assert (probe.available, probe.reason, probe.trainable) == (False, "cannot train causal-lm tasks", 0)
    assert lora.available
    assert plan.tasks["mail"].available == ("lora",)
    assert [study.study for study in plan.studies] == ["mail/lora"]


def test_plan_without_any_method_is_an_input_error(planned: Planner) -> None:
    with pytest.raises(InputError) as raised:
        planned("decoder", CAUSAL, methods=["linear_probe"])
    assert raised.value.lines() == [
        "tasks.mail: methods.linear_probe: cannot train causal-lm tasks",
        "none of the methods can train this task; add one that can",
    ]


def test_plan_refuses_impossible_overrides_one_line_each(planned: Planner) -> None:
    space = {"prompt": {"tokens": {"low": 4, "high": 90}}, "lora": {"rank": {"choices": [4, 99]}}}
    with pytest.raises(InputError) as raised:
        planned(
            "encoder",
            CLASSIFICATION,
            methods=["lora", "prompt"],
            search_space=space,
            training={"max_length": 32},
        )
    lora, prompt = sorted(raised.value.lines())
    assert lora.startswith("sweep: search_space.lora.rank: rank is 99; ")
    assert prompt.startswith("sweep: search_space.prompt.tokens: tokens is 90; beside rows of up to 32 tokens")


def test_plan_restricts_impossible_default_ranges_with_a_note(planned: Planner) -> None:
    plan = planned("encoder", CLASSIFICATION, methods=["prompt"], training={"max_length": 32})
    (prompt,) = plan.tasks["mail"].methods
    (study,) = plan.studies
    assert study.space.distributions["tokens"].high == 64  # type: ignore[attr-defined]
    (note,) = prompt.notes
    assert note.startswith("tokens is searched in 4..64 of 4..100: tokens is 100;")


def test_plan_passes_overrides_to_studies_and_probe(planned: Planner) -> None:
    ranks = [planned("encoder", CLASSIFICATION, methods=["lora"], search_space=_rank(rank)) for rank in (2, 4)]
    for plan, rank in zip(ranks, (2, 4), strict=True):
        (study,) = plan.studies
        assert study.space.default["rank"] == rank
        assert study.space.distributions["rank"].choices == (rank,)  # type: ignore[attr-defined]
    small, large = (plan.tasks["mail"].methods[0].trainable or 0 for plan in ranks)
    head = 3 * 32 + 3 + 32 * 32 + 32  # classifier and pooler
    assert (large - head) == 2 * (small - head)


def _rank(rank: int) -> dict[str, Any]:
    return {"lora": {"rank": {"value": rank}}}


@pytest.mark.slow
def test_plan_resolves_each_search_space_once(planned: Planner, monkeypatch: pytest.MonkeyPatch) -> None:
    resolved: list[str] = []

    def resolve(method: str, overrides: Any) -> Any:
        resolved.append(method)
        return resolve_space(method, overrides)

    monkeypatch.setattr("orchestrator.planning.plan.resolve_space", resolve)
    tasks = {"mail": CLASSIFICATION, "news": CLASSIFICATION}
    plan = planned("encoder", CLASSIFICATION, tasks=tasks, methods=["lora", "linear_probe"])
    assert len(plan.studies) == 4
    assert resolved == ["lora", "linear_probe"]


def test_plan_studies_are_ordered_by_method_with_directions(planned: Planner) -> None:
    tasks = {"mail": CLASSIFICATION, "talk": CAUSAL, "exact": {**CAUSAL, "metric": "exact_match"}}
    plan = planned("decoder", {}, tasks=tasks, methods=["lora", "linear_probe"])
    directions = [(study.study, study.higher_is_better) for study in plan.studies]
    lora = [("mail/lora", True), ("talk/lora", False), ("exact/lora", True)]
    assert directions == [*lora, ("mail/linear_probe", True)]


@pytest.mark.slow
def test_plan_needs_original_weights_only_for_methods_that_train_them(planned: Planner) -> None:
    assert not planned("encoder", CLASSIFICATION, methods=["lora", "linear_probe"]).needs_original
    assert planned("encoder", CLASSIFICATION, methods=["lora", "full"]).needs_original


@pytest.mark.parametrize(("seeds", "notes"), [(1, 0), (2, 1), (3, 0)])
def test_plan_notes_that_two_seeds_tell_little(planned: Planner, seeds: int, notes: int) -> None:
    plan = planned("encoder", CLASSIFICATION, selection={"seeds": seeds})
    told = [note for note in plan.notes if "selection.seeds" in note]
    assert len(told) == notes
    assert all(note.endswith("up to 12.7 standard errors to each side, with 3 seeds 4.3") for note in told)


def test_plan_rungs_follow_the_configuration(planned: Planner) -> None:
    plan = planned(
        "encoder",
        CLASSIFICATION,
        methods=["linear_probe"],
        training={"max_steps": 90, "max_length": 64},
        search={"first_rung": 0.1, "reduction_factor": 3},
    )
    assert plan.rungs == (9, 27, 90)  # 81 is too near the end


def test_plan_json_contains_methods_and_rows(planned: Planner) -> None:
    plan = planned("decoder", CAUSAL, methods=["lora", "linear_probe"])
    values = plan_json(plan)
    assert values["backbone"]["parameters"] == plan.parameters
    assert [(row["name"], row["available"]) for row in values["tasks"]["mail"]["methods"]] == [
        ("lora", True),
        ("linear_probe", False),
    ]
    assert sum(values["tasks"]["mail"]["rows"].values()) == 60


@pytest.mark.slow
@pytest.mark.parametrize(("task", "kind"), [(CLASSIFICATION, "classification"), (CAUSAL, "causal-lm")])
def test_methods_command_counts_as_a_plan_does(planned: Planner, folder: Path, task: dict[str, Any], kind: str) -> None:
    names = ["lora", "linear_probe", "prompt", "hard_prompt", "multitask_prompt", "bitfit"]
    few = {**task, "where": {"label": {"matches": "bad|good"}}}
    plan = planned("decoder", few, methods=names, training={"max_length": 48})
    rows = {row["name"]: row for row in map(method_row, capabilities(str(folder / "decoder"), "nf4", kind, names))}
    for method_plan in plan.tasks["mail"].methods:
        row = rows[method_plan.method]
        if method_plan.reason.endswith(
            "name them in the task's source_tasks"
        ):  # the list tries a method with a source task, which this task lacks
            assert row["available"]
            continue
        assert (row["available"], row["trainable"], row["reason"]) == (
            method_plan.available,
            method_plan.trainable,
            method_plan.reason,
        )


@pytest.mark.slow
def test_plan_refuses_rows_longer_than_the_backbone(planned: Planner) -> None:
    with pytest.raises(InputError, match=r"training\.max_length: is 97; the backbone takes 96 tokens at most"):
        planned("encoder", CLASSIFICATION, training={"max_length": 97})
    plan = planned("encoder", CLASSIFICATION, training={"max_steps": 10})
    assert plan.config.training.max_length == 96, "the default is lowered"


def test_plan_refuses_unusable_checkpoint_in_one_line(planned: Planner, folder: Path) -> None:
    bare, odd = folder / "bare", folder / "odd"
    for place in (bare, odd):
        shutil.copytree(folder / "encoder", place, ignore=shutil.ignore_patterns("tokenizer*", "special*"))
    config = (odd / "config.json").read_text()
    (odd / "config.json").write_text(config.replace('"model_type": "bert"', '"model_type": "no-such-kind"'))
    for place in (bare, odd):
        with pytest.raises(InputError) as caught:
            planned(place.name, CLASSIFICATION)
        assert len(caught.value.lines()) == 1
        assert "cannot be used" in caught.value.lines()[0]
