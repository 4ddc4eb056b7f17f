"""Capabilities of methods: restricted spaces, dry runs on tiny models, probes, and the ``methods`` command."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from transformers import BertConfig, PreTrainedConfig

import methods
import search_spaces
from methods.base.spec import Attached, MethodError
from orchestrator.backbone.architecture import architecture
from orchestrator.backbone.shared import SharedBackbone
from orchestrator.backbone.shrink import shallow, shrunk
from orchestrator.backbone.skeleton import skeleton, tiny_model
from orchestrator.cli.output import methods as view
from orchestrator.cli.output.console import console
from orchestrator.common.errors import InputError
from orchestrator.config import BackboneConfig
from orchestrator.planning.capability import Probe, list_methods, try_method
from orchestrator.planning.capability import probe as _probe
from orchestrator.planning.capability.attach import attach
from orchestrator.planning.capability.dry_run import dry_run, reads_ahead
from orchestrator.planning.capability.dummy_text import dummy_text, special_ids
from orchestrator.planning.capability.restrict_space import restrict_space
from orchestrator.tasks import TASK_TYPES
from search_spaces._base import SearchSpace

from ..architectures import ARCHITECTURES, LLAMA_3_8B, config_of

CLASSIFICATION = TASK_TYPES["classification"]
AUTO = "AutoModelForSequenceClassification"
SPACE = SearchSpace(
    distributions={
        "size": IntDistribution(4, 256, log=True),
        "blocks": IntDistribution(2, 20, step=3),
        "rate": FloatDistribution(0.0, 1.0),
        "place": CategoricalDistribution(["here", "there", "nowhere"]),
    },
    default={"size": 64, "blocks": 8, "rate": 0.5, "place": "here"},
    sources={},
)


def refusing(**possible: Callable[[Any], bool]) -> Callable[[Mapping[str, Any], bool], str]:
    """Return a refusal that names the parameters outside the possible values."""

    def refusal(params: Mapping[str, Any], thoroughly: bool) -> str:
        wrong = [f"{name} is {params[name]}" for name, fits in possible.items() if not fits(params[name])]
        return ", ".join(wrong)

    return refusal


def restricted(refusal: Callable[..., str], overridden: set[str] | None = None, **changes: Any):
    default = {**SPACE.default, **changes}
    return restrict_space(replace(SPACE, default=default), SPACE.default, overridden or set(), refusal)


def test_restrict_space_keeps_a_space_that_works() -> None:
    result = restricted(refusing())
    assert result.space == SPACE
    assert (result.reason, result.notes, result.problems) == ("", (), ())


@pytest.mark.parametrize(
    ("possible", "name", "expected", "note"),
    [
        ({"size": lambda x: x <= 99}, "size", IntDistribution(4, 99, log=True), "size is searched in 4..99 of 4..256"),
        ({"size": lambda x: x >= 9}, "size", IntDistribution(9, 256, log=True), "size is searched in 9..256 of 4..256"),
        (
            {"size": lambda x: 9 <= x <= 99},
            "size",
            IntDistribution(9, 99, log=True),
            "size is searched in 9..99 of 4..256",
        ),
        (
            {"blocks": lambda x: x < 13},
            "blocks",
            IntDistribution(2, 11, step=3),
            "blocks is searched in 2..11 of 2..20",
        ),
        (
            {"place": lambda x: x != "nowhere"},
            "place",
            CategoricalDistribution(["here", "there"]),
            "place is searched in here, there of here, there, nowhere",
        ),
    ],
)
def test_restrict_space_cuts_off_what_fails_with_a_note(possible: Any, name: str, expected: Any, note: str) -> None:
    result = restricted(refusing(**possible))
    assert result.space.distributions[name] == expected
    assert {**result.space.distributions, name: SPACE.distributions[name]} == SPACE.distributions
    (line,) = result.notes
    assert line.startswith(f"{note}: {name} is ")


def test_restrict_space_bisects_the_end_of_a_range() -> None:
    high = restricted(refusing(rate=lambda x: x < 0.8)).space.distributions["rate"].high
    assert high == pytest.approx(0.8, abs=1e-3)
    assert high < 0.8


def test_restrict_space_never_changes_overrides() -> None:
    def refusal(params: Mapping[str, Any], thoroughly: bool) -> str:
        return "size is 256" if params["size"] > 99 else "no such place" if params["place"] == "nowhere" else ""

    result = restricted(refusal, {"size", "place"})
    assert result.space.distributions == SPACE.distributions
    assert result.problems == (("size", "size is 256"), ("place", "nowhere is not possible here: no such place"))
    assert result.notes == ()


def test_restrict_space_changes_the_default_least() -> None:
    result = restricted(refusing(size=lambda x: x <= 20))
    assert result.space.default == {**SPACE.default, "size": 20}
    assert result.space.distributions["size"] == IntDistribution(4, 20, log=True)


def test_restrict_space_reports_an_overridden_default() -> None:
    result = restricted(refusing(size=lambda x: x <= 99), {"size"}, size=100)
    assert result.reason == "size is 100"
    assert result.problems == (("size", "size is 100"),)


def test_restrict_space_gives_the_reason_when_nothing_works() -> None:
    result = restricted(lambda params, thoroughly: "no such module")
    assert (result.reason, result.notes, result.problems) == ("no such module", (), ())


def test_restrict_space_runs_dry_for_texts_not_numbers() -> None:
    tried = []
    restricted(lambda params, thoroughly: tried.append((params, thoroughly)) or "")
    assert {params["place"] for params, thoroughly in tried if thoroughly} == {"here", "there", "nowhere"}
    assert {params["size"] for params, thoroughly in tried if not thoroughly} == {4, 64, 256}


def tiny() -> PreTrainedConfig:
    return BertConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=8, num_attention_heads=4, vocab_size=100)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_tiny_model_has_all_modules_of_its_architecture(name: str) -> None:
    model = tiny_model(config_of(name), AUTO, "classification", name, 3, "nf4")
    assert model is not None
    logits = model.model(input_ids=torch.tensor([[5, 6, 7, special_ids(model.model.config)["eos_token"]]])).logits
    assert logits.shape == (1, 3)


def test_shrunk_config_is_small_in_every_dimension() -> None:
    before = LLAMA_3_8B.to_dict()
    small = next(shrunk(LLAMA_3_8B))
    assert LLAMA_3_8B.to_dict() == before
    assert (small.hidden_size, small.intermediate_size, small.num_hidden_layers, small.vocab_size) == (128, 448, 2, 512)
    assert small.num_attention_heads % small.num_key_value_heads == 0
    assert small.num_attention_heads // small.num_key_value_heads == 4
    assert len({small.bos_token_id, *small.eos_token_id}) == 3
    assert max(small.bos_token_id, *small.eos_token_id) < 512


def test_shallow_config_keeps_widths_and_layer_types() -> None:
    config = config_of("gemma3")
    kinds = ["sliding_attention"] * 5 + ["full_attention"]
    config.update({"num_hidden_layers": 6, "layer_types": kinds})
    few = next(shallow(config, (2,)))
    assert (few.num_hidden_layers, few.layer_types) == (2, ["sliding_attention", "full_attention"])
    assert few.hidden_size == config.hidden_size


def test_skeleton_has_no_weights_and_tiny_model_is_quantized() -> None:
    bare = skeleton(LLAMA_3_8B, AUTO, "classification", "x", 2, "nf4")
    assert {tensor.device.type for tensor in bare.model.parameters()} == {"meta"}
    assert bare.parameters() == 7_504_924_672
    small = tiny_model(LLAMA_3_8B, AUTO, "classification", "x", 2, "nf4")
    assert small is not None
    assert small.model.dtype == torch.bfloat16
    assert {tensor.dtype for tensor in small.shared_tensors()} >= {torch.uint8, torch.bfloat16}


@pytest.fixture(scope="module")
def small() -> SharedBackbone:
    model = tiny_model(tiny(), AUTO, "classification", "x", 3, "nf4")
    assert model is not None
    return model


def probe_head(small: SharedBackbone) -> Attached:
    return attach(methods.get("linear_probe"), {}, small)


def write_backbone(small: SharedBackbone) -> Callable[[int, int], object]:
    return lambda step, total: next(small.shared_tensors()).view(-1)[:1].add_(1)


def misread(attached: Attached) -> None:
    with torch.no_grad():
        attached.groups[0].parameters[0].add_(1)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda a, b: replace(a, on_step=lambda step, total: 1 / 0), "training it fails: ZeroDivisionError: "),
        (
            lambda a, b: replace(a, on_step=lambda step, total: a.groups[0].parameters[0].data.fill_(torch.nan)),
            "is nan",
        ),
        (lambda a, b: replace(a, penalty=lambda: torch.tensor(torch.inf)), "the loss is inf"),
        (lambda a, b: replace(a, on_step=write_backbone(b)), "it writes into the shared backbone"),
        (lambda a, b: replace(a, save=lambda folder: None), "is not an adapter"),
        (
            lambda a, b: replace(a, save=lambda folder: (misread(a), a.save(folder))),
            "it gives other results after saving and loading",
        ),
    ],
    ids=["raises", "diverges", "infinite", "writes", "saves-nothing", "saves-other"],
)
def test_dry_run_finds_failures_of_every_step(small: SharedBackbone, spoil: Any, reason: str) -> None:
    spec, attached = methods.get("linear_probe"), probe_head(small)
    dry_run(spec, attached, small, CLASSIFICATION)
    spoiled = spoil(probe_head(small), small)
    with pytest.raises(MethodError, match=reason):
        dry_run(spec, spoiled, small, CLASSIFICATION)


def test_dry_run_finds_parameters_without_gradient(small: SharedBackbone) -> None:
    spec, attached = methods.get("linear_probe"), probe_head(small)
    attached.module.register_parameter("idle", torch.nn.Parameter(torch.ones(1)))
    with pytest.raises(MethodError, match=r"^1 of \d+ parameters get no gradient, \['idle'\] among them$"):
        dry_run(spec, attached, small, CLASSIFICATION)


def test_dry_run_finds_a_wrong_merge(small: SharedBackbone, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = methods.get("linear_probe")
    load = methods.load_adapter

    def spoiled(*arguments: Any) -> Attached:
        back = load(*arguments)
        return replace(back, merge=lambda: small.view(5))

    monkeypatch.setattr(methods, "load_adapter", spoiled)
    with pytest.raises(MethodError, match="it gives other results after merging"):
        dry_run(spec, probe_head(small), small, CLASSIFICATION)


def test_dry_run_keeps_the_random_state(small: SharedBackbone) -> None:
    before = torch.get_rng_state()
    dry_run(methods.get("linear_probe"), probe_head(small), small, CLASSIFICATION)
    assert torch.equal(torch.get_rng_state(), before)


def test_reads_ahead_tells_encoders_from_decoders() -> None:
    for name, expected in (("bert", True), ("llama", False), ("bart", False)):
        model = tiny_model(config_of(name), "AutoModelForCausalLM", "causal-lm", name, 0, "none")
        assert model is not None
        assert reads_ahead(model, TASK_TYPES["causal-lm"]) is expected, name


@pytest.mark.parametrize("method", ["lora", "adapter", "ia3", "prompt"])
def test_probe_extrapolates_counts_from_few_layers(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[Any] = []
    for seconds in (_probe.MAX_ATTACH_SECONDS, 0.0):
        monkeypatch.setattr(_probe, "MAX_ATTACH_SECONDS", seconds)
        probe = Probe(tiny(), CLASSIFICATION, name="x", labels=3, quantization="nf4")
        counted.append(try_method(probe, method)[0].trainable)
    assert counted[0] == counted[1] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "params", "expected"),
    [
        ("linear_probe", {}, (1.0, 1.1)),  # forward alone, and a little for the head
        ("last_layers", {"fraction": 0.25}, (1.25, 1.6)),
        ("last_layers", {"fraction": 0.75}, (1.75, 2.2)),
        ("lora", {}, (2.0, 2.1)),
        ("prompt", {}, (2.0, 2.1)),  # before the first block, so back through all
        ("full", {}, (2.9, 3.0)),
    ],
)
def test_probe_passes_follow_the_trained_depth(
    method: str, params: dict[str, Any], expected: tuple[float, float]
) -> None:
    config = BertConfig(hidden_size=64, num_hidden_layers=4, num_attention_heads=4, intermediate_size=128)
    probe = Probe(config, CLASSIFICATION, name="small", labels=3, quantization="nf4")
    result = probe.capability(method, {**search_spaces.get(method).default, **params})
    assert expected[0] <= result.passes <= expected[1]


def test_probe_counts_equal_attachment_with_weights() -> None:
    config = config_of("bert")  # as small as its tiny model
    config.vocab_size = 512
    probe = Probe(config, CLASSIFICATION, name="x", labels=3, quantization="nf4")
    small = tiny_model(config, AUTO, "classification", "x", 3, "nf4")
    assert small is not None
    small.context = replace(small.context, text=dummy_text(config, 3, 20), sources=("source",))
    for name in list_methods()[0]:
        result, params = try_method(probe, name)
        if result.available:
            real = attach(methods.get(name), params, small)
            count = sum(parameter.numel() for parameter in real.trainable().values())
            assert (result.trainable, result.mergeable) == (count, real.merge is not None), name


def test_probe_accepts_what_only_the_tiny_model_refuses() -> None:
    probe = Probe(LLAMA_3_8B, CLASSIFICATION, name="x", labels=2, quantization="nf4")
    default = search_spaces.get("lora").default
    result = probe.capability("lora", {**default, "rank": 256, "targets": "attention_qv"})
    assert (result.available, result.reason) == (True, "")
    assert result.trainable == 32 * 256 * (2 * 4096 + 4096 + 1024) + 2 * 4096


def test_probe_leaves_counts_open_where_weights_are_needed() -> None:
    probe = Probe(LLAMA_3_8B, CLASSIFICATION, name="x", labels=2, quantization="nf4")
    result, _ = try_method(probe, "peft:frod")
    assert (result.available, result.trainable, result.percent) == (True, None, None)


def test_dummy_text_stays_within_the_vocabulary() -> None:
    config = config_of("roberta")
    words = dummy_text(config, 3, 20)
    assert (words.labels, words.max_length) == (("a", "b", "c"), 20)
    ids = words.tokenizer("Is it so? Ja, natürlich!")["input_ids"]
    assert 0 <= min(ids) <= max(ids) < config.vocab_size
    assert (words.tokenizer.pad_token_id, words.tokenizer.eos_token_id) == (1, 2)
    assert len(set(special_ids(config).values())) == 4
    assert [label for _, label in words.examples(4)] == [0, 1, 2, 0]


def test_methods_command_needs_only_a_configuration_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny().save_pretrained(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["config.json"]
    result = view.capabilities(str(tmp_path), "nf4", "classification", ["lora", "compose:lora+prefix", "peft:xlora"])
    rows = {row["name"]: row for row in map(view.method_row, result)}
    assert {name: row["available"] for name, row in rows.items()} == {
        "lora": True,
        "compose:lora+prefix": True,
        "peft:xlora": False,
    }
    assert rows["lora"]["trainable"] > 0
    assert rows["compose:lora+prefix"]["trainable"] > rows["lora"]["trainable"]
    assert set(rows["lora"]) == {"name", "category", "available", "reason", "trainable", "percent", "mergeable"}
    json.dumps(rows)


def test_methods_command_fits_eighty_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny().save_pretrained(tmp_path)
    names = ["lora", "linear_probe", "adapter", "peft:xlora", "peft:poly", "compose:houlsby=adapter+parallel=adapter"]
    for backbone in ("", str(tmp_path)):
        result = view.capabilities(backbone, "nf4", "classification", names)
        monkeypatch.setattr(console, "_width", 80)
        view.print_methods(result, bool(backbone))
        lines = capsys.readouterr().out.splitlines()
        assert max(len(line) for line in lines if "--backbone" not in line) <= 80  # that one is to be typed
        for name in names:
            assert any(name in line for line in lines)
        headings = [line.strip() for line in lines if line.strip() in ("selective", "additive", "left out")]
        assert headings == ["selective", "additive", "left out"]


@pytest.mark.parametrize(
    ("names", "lines"),
    [
        (["lorra"], ["--method: lorra: unknown method; did you mean lora?"]),
        (["peft:bofd"], ["--method: peft:bofd: unknown method; did you mean peft:boft?"]),
    ],
)
def test_methods_command_refuses_unknown_methods_one_line_each(names: list[str], lines: list[str]) -> None:
    with pytest.raises(InputError) as raised:
        view.capabilities("", "nf4", "classification", names)
    assert raised.value.lines() == lines


def test_architecture_refuses_unusable_folders_in_one_line(tmp_path: Path) -> None:
    odd, empty = tmp_path / "odd", tmp_path / "empty"
    odd.mkdir()
    empty.mkdir()
    (odd / "config.json").write_text('{"model_type": "no-such-kind"}')
    for place, reason in ((odd, "cannot be used: "), (empty, "has no config.json")):
        with pytest.raises(InputError) as raised:
            architecture(BackboneConfig(model=str(place)), tmp_path)
        (line,) = raised.value.lines()
        assert reason in line


def test_list_methods_names_methods_and_refused_types() -> None:
    names, refused = list_methods()
    assert set(methods.names()) <= set(names)
    assert len(names) >= 40
    assert not set(names) & set(refused)
    assert all(reason and "\n" not in reason for reason in refused.values())
