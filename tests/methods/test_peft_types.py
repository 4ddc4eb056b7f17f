"""``peft:TYPE``: which types are methods, their parameters, and that each one trains, saves and loads."""

import dataclasses
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftType
from torch import nn

import methods
from methods.base import peft_adapter
from methods.base.architecture import name_pattern, targets
from methods.base.lazy_weights import LazyWeight, lazy_weights
from methods.base.spec import Hyperparameters, MethodError
from methods.families import peft_type_names
from methods.families.peft_type_names import FIRST_CLASS, refused, trainable_types, types
from methods.families.peft_type_params import config_class, has_targets, params_type
from methods.families.peft_type_sizes import fit_sizes
from methods.parts.low_rank import TARGETS
from orchestrator.backbone.skeleton import skeleton
from orchestrator.backbone.weights import FourBitWeight

ENCODER = ("encoder", "classification", "nf4")


def attached(case, kind: str, **changes):
    spec = methods.get(f"peft:{kind}")
    return case.attach(spec, spec.params_type(**changes))


def test_peft_types_are_trainable_or_refused():
    assert set(types()) == {kind.value.lower() for kind in PeftType}
    assert set(trainable_types()) | set(refused()) == set(types())
    assert not set(trainable_types()) & set(refused())
    assert set(FIRST_CLASS) < set(refused())
    assert len(trainable_types()) >= 25


def test_peft_types_with_own_method_exist():
    assert set(FIRST_CLASS.values()) <= set(methods.names())


def test_peft_types_are_listed_without_importing_torch():
    check = (
        "import sys, methods, search_spaces\n"
        "from methods.families.peft_type_names import trainable_types\n"
        "for kind in trainable_types(): search_spaces.get(f'peft:{kind}')\n"
        "assert not {'torch', 'peft', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", check], check=True)


def test_peft_types_include_those_of_newer_peft(monkeypatch):
    source = peft_type_names._source()
    newer = source.replace('    BOFT = "BOFT"', '    BOFT = "BOFT"\n    NEWEST = "NEWEST"')
    monkeypatch.setattr(peft_type_names, "_source", lambda: newer)
    types.cache_clear()
    try:
        assert set(trainable_types()) - {kind.value.lower() for kind in PeftType} == {"newest"}
    finally:
        types.cache_clear()


def test_peft_type_unknown_or_refused_raises():
    with pytest.raises(KeyError, match="peft:boff"):
        methods.get("peft:boff")
    for kind, reason in refused().items():
        with pytest.raises(MethodError) as caught:
            methods.get(f"peft:{kind}")
        assert str(caught.value) == f"peft:{kind} {reason}"


@pytest.mark.filterwarnings("ignore:No value was provided for:UserWarning")  # xlora, of its defaults
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors:UserWarning")  # xlora, of no adapters
@pytest.mark.parametrize("kind", [kind for kind in refused() if kind not in FIRST_CLASS])
def test_peft_type_refused_fails_when_forced(kind, make_case):
    for case in (make_case(*ENCODER), make_case("decoder", "causal-lm", "nf4")):
        with pytest.raises((ArithmeticError, LookupError, RuntimeError, StopIteration, TypeError, ValueError)):
            force(case, kind)


def force(case, kind: str) -> None:
    """Attach and train a type with peft's defaults, and raise if it breaks the contract of a method."""
    view, config = case.view(), config_class(kind)
    fields, names = {field.name for field in dataclasses.fields(config)}, targets(view, TARGETS["all_linear"])
    places = {} if kind in ("adaption_prompt", "shadow") else {"target_modules": name_pattern(names)}
    changes = {name: value for name, value in places.items() if name in fields}
    attachment = peft_adapter.attach(view, config(**changes), kind, Hyperparameters(), case.shared.context)
    attachment.train(True)
    attachment.module(**case.batch(), labels=case.labels()).loss.backward()
    if any(parameter.grad is None for parameter in attachment.trainable().values()):
        raise ArithmeticError("something that trains gets no gradient")
    torch.optim.SGD(attachment.trainable().values(), lr=1.0).step()
    attachment.train(False)
    with torch.no_grad():
        among = attachment.module(**case.batch()).logits[1]
        alone = attachment.module(**{name: tensor[1:2] for name, tensor in case.batch().items()}).logits[0]
    if not torch.allclose(among, alone, atol=1e-4, rtol=1e-4):
        raise ArithmeticError("a row's result depends on the rows beside it")


@pytest.mark.parametrize("kind", trainable_types())
def test_peft_type_params_equal_defaults_of_peft(kind):
    params = params_type(kind)()
    peft_defaults = {field.name: field.default for field in dataclasses.fields(config_class(kind))}
    defaults = {
        name: value
        for name, value in params.to_dict().items()
        if name in peft_defaults and peft_defaults[name] is not None
    }
    assert defaults == {name: peft_defaults[name] for name in defaults}
    shared = {field.name for field in dataclasses.fields(Hyperparameters)}
    assert set(params.to_dict()) <= shared | set(peft_defaults) | {"targets"}
    assert json.loads(json.dumps(params.to_dict())) == params.to_dict()
    assert pickle.loads(pickle.dumps(params)) == params


def test_peft_type_params_unpickle_in_fresh_process():
    params = params_type("boft")(**{"boft_block_size": 8}, learning_rate=0.5)
    pickled = pickle.dumps(params)
    params_type.cache_clear()
    loaded = pickle.loads(pickled)
    assert type(loaded) is params_type("boft")
    assert (loaded.kind, loaded.to_dict()) == ("boft", params.to_dict())


@pytest.mark.parametrize(
    ("kind", "values", "line"),
    [
        ("vera", {"r": 0}, "r is 0; it must be above 0"),
        ("loha", {"module_dropout": 1.0}, "module_dropout is 1.0; it must be in 0..1, below 1"),
        ("hra", {"targets": "q_proj"}, "targets is 'q_proj'; it must be one of attention_qv"),
        ("gralora", {"r": 7}, "peft:gralora: r should be divisible by gralora_k"),
        ("supertuning", {"sparsity": 1.0}, "peft:supertuning: sparsity must be in"),
    ],
)
def test_peft_type_params_refuse_values_out_of_range(kind, values, line):
    with pytest.raises(MethodError, match="^" + line) as caught:
        params_type(kind).from_dict(values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "values", "shapes", "used"),
    [
        ("c3a", {"block_size": 256}, {(384, 384), (384, 1536)}, {"block_size": 192}),
        ("c3a", {"block_size": 64}, {(576, 192)}, {"block_size": 64}),
        ("oft", {"oft_block_size": 10}, {(32, 16)}, {"oft_block_size": 8}),
        ("vblora", {"vector_length": 256}, {(384, 1536)}, {"vector_length": 192}),
        ("miss", {"r": 64}, {(32, 16), (32, 32)}, {"r": 10}),
        ("shira", {"r": 4}, {(32, 32)}, {"r": 4}),
        ("waveft", {"n_frequency": 2592}, {(32, 16), (32, 64)}, {"n_frequency": 512}),
        ("vera", {"r": 256}, {(32, 16)}, {}),
    ],
)
def test_peft_type_sizes_are_upper_limits(kind, values, shapes, used):
    assert fit_sizes(params_type(kind)(**values), shapes) == used


def test_peft_type_sizes_refuse_widths_without_divisor():
    with pytest.raises(MethodError, match=r"^block_size is 16; .* divides every layer's width: 7, 30$"):
        fit_sizes(params_type("c3a")(**{"block_size": 16}), {(30, 7)})


@pytest.mark.parametrize("kind", trainable_types())
def test_peft_type_trains_and_loads_bit_for_bit(kind, make_case, tmp_path: Path):
    case = make_case(*ENCODER)
    before, fresh = case.shared.checksum(), attached(case, kind)
    optimizer = torch.optim.AdamW([p for group in fresh.groups for p in group.parameters], lr=1e-2)
    fresh.train(True)
    for step in range(2):
        optimizer.zero_grad()
        fresh.module(**case.batch(), labels=case.labels()).loss.backward()
        optimizer.step()
        if fresh.on_step:
            fresh.on_step(step + 1, 2)
    fresh.train(False)
    assert [name for name, p in fresh.trainable().items() if p.grad is None] == []
    assert not torch.equal(case.logits(fresh.module), case.logits(case.view()))
    fresh.save(tmp_path)
    torch.manual_seed(12345)
    back = methods.load_adapter(case.shared.view(99), tmp_path, case.shared.context)
    back.train(False)
    assert torch.equal(case.logits(back.module), case.logits(fresh.module))
    assert case.shared.checksum() == before


@pytest.mark.parametrize("kind", ["adamss", "cartridge", "frod", "osf", "psoft", "shira", "tinylora", "vera"])
def test_peft_type_counts_parameters_on_skeleton(kind, make_case):
    # T5 has a layer that is not packed, and BERT has biases
    for where in ("encoder", "encoder-decoder") if has_targets(kind) else ("encoder",):
        case, spec = make_case(where, "classification", "none"), methods.get(f"peft:{kind}")
        config = case.plain().config
        bare = skeleton(config, "AutoModelForSequenceClassification", "classification", "x", config.num_labels)
        counted = spec.attach(bare.view(0), spec.params_type(), bare.context)
        sizes = [
            sum(p.numel() for p in attachment.trainable().values()) for attachment in (counted, attached(case, kind))
        ]
        assert sizes[0] == sizes[1]


@pytest.mark.parametrize("kind", ["adamss", "boft", "beft", "cartridge", "vera"])
def test_peft_type_keeps_to_layers_of_context(kind, make_case):
    case = make_case(*ENCODER)
    spec = methods.get(f"peft:{kind}")
    context = dataclasses.replace(case.shared.context, layers=frozenset({1}))
    if kind == "cartridge":
        with pytest.raises(MethodError, match="sits in every block"):
            spec.attach(case.view(), spec.params_type(), context)
        return
    names = spec.attach(case.view(), spec.params_type(), context).trainable()
    assert {name.split(".layer.")[1].split(".")[0] for name in names if ".layer." in name} == {"1"}


def test_peft_type_calls_update_after_each_step(make_case, monkeypatch):
    case, steps = make_case(*ENCODER), []
    attachment = attached(case, "adamss")
    monkeypatch.setattr(
        type(attachment.module.base_model), "update_and_allocate", lambda model, step: steps.append(step)
    )
    attachment = attached(case, "adamss")
    attachment.on_step(3, 10)
    assert steps == [3]
    assert attached(case, "vera").on_step is None


def test_lazy_weight_unpacks_at_first_operation(make_case, monkeypatch):
    view, unpacked = make_case(*ENCODER).view(), []
    layer: nn.Linear = view.get_submodule("bert.encoder.layer.0.attention.self.query")
    real, dense = layer.weight, FourBitWeight.dequantize
    monkeypatch.setattr(FourBitWeight, "dequantize", lambda *args: unpacked.append(1) or dense(*args))
    with lazy_weights(view):
        weight = layer.weight
        properties = (weight.shape, weight.dtype, weight.device, weight.detach().dtype, weight.data.shape)
        assert properties == (real.shape, real.dtype, real.device, real.dtype, real.shape)
        assert isinstance(weight, LazyWeight)
        assert not unpacked
        assert torch.equal(weight.data.T, real.T)
        assert unpacked
        assert torch.equal(torch.cat([weight, real]), torch.cat([real, real]))
    assert torch.equal(layer.weight, real)


@pytest.mark.slow
def test_peft_type_adapters_give_same_bits_in_another_process(make_case, tmp_path: Path):
    case = make_case(*ENCODER)
    for number, kind in enumerate(trainable_types()):
        torch.manual_seed(number)
        attachment = attached(case, kind)
        with torch.no_grad():
            for parameter in attachment.trainable().values():
                parameter += 0.1 * torch.randn_like(parameter)
        attachment.train(False)
        (tmp_path / kind).mkdir()
        attachment.save(tmp_path / kind)
        (tmp_path / f"{kind}.json").write_text(json.dumps(case.logits(attachment.module).tolist()))
    (tmp_path / "batch.json").write_text(json.dumps({key: value.tolist() for key, value in case.batch().items()}))
    frozen = case.original.parent / "frozen.safetensors"
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(tmp_path), str(frozen), str(case.original)],
        check=True,
        capture_output=True,
        text=True,
    )
    assert json.loads(done.stdout) == []


ELSEWHERE = """
import json, sys, warnings
from pathlib import Path
import torch
import methods
from orchestrator.backbone.shared import load

warnings.simplefilter("ignore")
torch.set_num_threads(1)
folder, frozen, name = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
shared = load(frozen, "classification", name=name, dtype=torch.float32, labels=3)
batch = {key: torch.tensor(value) for key, value in json.loads((folder / "batch.json").read_text()).items()}
different = []
for saved in sorted(path for path in folder.iterdir() if path.is_dir()):
    torch.manual_seed(777)
    back = methods.load_adapter(shared.view(5), saved, shared.context)
    back.train(False)
    with torch.no_grad():
        logits = back.module(**batch).logits
    if not torch.equal(logits, torch.tensor(json.loads(saved.with_suffix(".json").read_text()))):
        different.append(saved.name)
print(json.dumps(different))
"""
