"""Constraints of a sweep: requirements are known before training, and the search proposes nothing beyond a limit."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

import methods
import search_spaces
from methods.base.spec import TaskText
from orchestrator.backbone.checkpoint import write
from orchestrator.backbone.shared import load
from orchestrator.common.errors import InputError
from orchestrator.config import SweepConfig
from orchestrator.config.constraints import Constraint
from orchestrator.planning.capability import MethodConstraints
from orchestrator.planning.plan import SweepPlan, make_plan
from orchestrator.search.studies import Study, open_storage

SIZES: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
SIZES |= {"vocab_size": 60, "max_position_embeddings": 96, "pad_token_id": 0}
TASK = {"type": "classification", "text": "text", "label": "label", "data": "rows.csv"}
METHODS = ["lora", "adapter", "prefix", "linear_probe", "prompt"]


def _fixed(method: str) -> dict[str, Any]:
    """Return overrides that fix everything except LoRA's rank, because trying every end of a space takes long."""
    default = search_spaces.get(method).default
    return {name: {"value": value} for name, value in default.items() if (method, name) != ("lora", "rank")}


Planner = Callable[..., SweepPlan]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Planner:
    folder = tmp_path_factory.mktemp("limits")
    rows = [f"text number {row},{'abc'[row % 3]}" for row in range(60)]
    (folder / "rows.csv").write_text("\n".join(["text,label", *rows]))
    torch.manual_seed(0)
    BertModel(BertConfig(**SIZES)).save_pretrained(folder / "encoder")
    words = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1}, unk_token="[UNK]"))
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]").save_pretrained(folder / "encoder")

    def make(methods: list[str], search: dict[str, Any], **changes: Any) -> SweepPlan:
        fixed = {method: _fixed(method) for method in methods}
        values: dict[str, Any] = {"search_space": fixed}
        values |= {"backbone": {"model": "encoder"}, "tasks": {"mail": TASK}, "budget": {"trials": 2}}
        values |= {"training": {"max_length": 64}, "methods": methods, "search": search, **changes}
        return make_plan(SweepConfig.model_validate(values, context={"base": folder}))

    return make


def test_requirements_equal_what_a_lane_saves(planned: Planner, tmp_path: Path) -> None:
    plan = planned(METHODS, {"constraints": ["adapter <= 1 GB"]})
    task = plan.tasks["mail"]
    write(plan.source, task.type.auto_class, "nf4", True, tmp_path / "frozen.safetensors")
    shared = load(tmp_path / "frozen.safetensors", "classification", name="encoder", dtype=torch.float32, labels=3)
    text = TaskText(tokenizer=plan.tokenizer, labels=("a", "b", "c"), max_length=64, examples=lambda count: [])
    shared.context = replace(shared.context, text=text)
    for study in plan.studies:
        method = study.study.rpartition("/")[2]
        spec, params = methods.get(method), study.space.default
        attached = spec.attach(shared.view(0), spec.params_type.from_dict(params), shared.context)
        (tmp_path / method).mkdir()
        attached.save(tmp_path / method)
        requirements = task.limits[method].requirements(params)
        assert requirements["adapter"] == sum(file.stat().st_size for file in (tmp_path / method).iterdir()), method
        assert requirements["trainable"] == sum(parameter.numel() for parameter in attached.trainable().values())
        stored = sum(tensor.numel() * tensor.element_size() for tensor in shared.shared_tensors())
        assert 0.4 * stored < requirements["memory"] - 16 * requirements["trainable"] <= stored


def test_constraints_reduce_a_default_with_a_note(planned: Planner) -> None:
    before = planned(["lora"], {}).tasks["mail"].plan_of("lora")
    assert before.trainable is not None
    limit = before.trainable - 1
    lora = planned(["lora"], {"constraints": [f"trainable <= {limit}"]}).tasks["mail"].plan_of("lora")
    assert before.space is not None
    assert lora.space is not None
    assert lora.trainable is not None
    assert lora.trainable <= limit
    assert lora.space.distributions == before.space.distributions
    ((name, value),) = lora.space.default.items() - before.space.default.items()
    assert lora.notes[-1].startswith(f"{name} starts at {value} instead of {before.space.default[name]}: trainable is ")


def test_constraints_leave_out_method_without_small_enough_configuration(planned: Planner) -> None:
    plan = planned(["lora", "linear_probe"], {"constraints": ["adapter <= 19 kB", "trainable <= 1.5k"]})
    lora, probe = plan.tasks["mail"].methods
    assert probe.available
    assert not lora.available
    assert lora.reason.startswith("adapter is ")
    assert [study.study for study in plan.studies] == ["mail/linear_probe"]


def test_constraints_that_no_method_satisfies_are_an_error(planned: Planner) -> None:
    with pytest.raises(InputError) as raised:
        planned(["lora", "ia3"], {"constraints": ["trainable <= 10"]})
    lines = str(raised.value.lines())
    assert "methods.lora: trainable is " in lines
    assert "methods.ia3: trainable is " in lines


def test_constraints_bound_every_proposal(planned: Planner) -> None:
    (free,) = planned(["lora"], {}).studies
    (bound,) = planned(["lora"], {"constraints": ["trainable <= 9k"]}).studies
    assert bound.constraints is not None
    study = Study(
        bound.study,
        bound.space,
        higher_is_better=True,
        storage=open_storage(None),
        seed=1,
        constraints=bound.constraints,
    )
    ranks = []
    while not study.exhausted_by(study.started):
        ranks.append(study.ask()[1]["rank"])
    possible = [rank for rank in range(2, 33) if not max(bound.constraints({**free.space.default, "rank": rank})) > 0]
    assert sorted(ranks) == possible
    assert 1 < len(possible) < 31


def test_constraints_refuse_configuration_of_unknown_requirements() -> None:
    class Blind:
        def requirements(self, *_: Any) -> Any:
            raise methods.MethodError("computes with weights")

    constraints = MethodConstraints(Blind(), "lora", [Constraint("adapter", 1e6)])  # type: ignore[arg-type]
    assert not constraints.allows({})
    assert constraints.refusal({}) == "its requirements are unknown before training: computes with weights"


def test_grid_sampler_refuses_continuous_ranges(planned: Planner) -> None:
    with pytest.raises(InputError) as raised:
        planned(["linear_probe"], {"sampler": "grid"}, search_space={})
    (line,) = raised.value.lines()
    assert "search_space.linear_probe.learning_rate: has no steps" in line
    space = {"linear_probe": {**_fixed("linear_probe"), "learning_rate": {"choices": [1e-3, 1e-2]}}}
    (study,) = planned(["linear_probe"], {"sampler": "grid"}, search_space=space).studies
    assert study.space.default["learning_rate"] in (1e-3, 1e-2)
