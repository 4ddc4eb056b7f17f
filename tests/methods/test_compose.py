"""Compositions: names, parameters, layers, and that each part equals its method alone."""

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import methods
import search_spaces
from methods.base.architecture import blocks
from methods.base.spec import Attached, MethodError
from methods.families.compose_names import Part, methods_of, parse
from orchestrator.search.space import resolve

pytestmark = pytest.mark.filterwarnings(
    # peft 0.21 uses a name that transformers 5 has deprecated, when it loads an adapter
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",
)


def attach(case, member: str, **params) -> Attached:
    spec = methods.get(f"compose:{member}")
    attached = case.attach(spec, spec.params_type.from_dict({k.replace("__", "."): v for k, v in params.items()}))
    attached.train(False)
    return attached


def nudge(parameters) -> None:
    torch.manual_seed(13)
    with torch.no_grad():
        for parameter in parameters:
            parameter += 0.1 * torch.randn_like(parameter)


def kinds(attached: Attached) -> set[str]:
    """Return the kinds of parameters that train, by marks in their names."""
    marks = {"lora_": "lora", "ia3_": "ia3", "adapter.": "adapter", "prompt_encoder": "prefix", "classifier": "head"}
    return {kind for name in attached.trainable() for mark, kind in marks.items() if mark in name}


def test_compose_name_is_parsed_into_parts() -> None:
    assert parse("prefix+adapter") == (Part("prefix", "prefix"), Part("adapter", "adapter"))
    assert parse("serial=adapter+oft=peft:oft+peft:boft") == (
        Part("serial", "adapter"),
        Part("oft", "peft:oft"),
        Part("boft", "peft:boft"),
    )
    assert methods_of("compose:serial=adapter+lora") == ("adapter", "lora")
    assert methods_of("lora") == ("lora",)


@pytest.mark.parametrize(
    ("member", "message"),
    [
        ("", "'' is not a part; write METHOD or NAME=METHOD, with + between parts"),
        ("lora+", "'' is not a part"),
        ("lora + ia3", "'lora ' is not a part"),
        ("a.b=lora", "'a.b=lora' is not a part"),
        ("lora+compose:ia3", "'compose:ia3' is not a part"),
        ("adapter+adapter", "two parts are called adapter; name them, as in first=adapter+second=adapter"),
        ("full+lora", "full cannot be part of a composition: it trains every weight already"),
        ("lora+linear_probe", "linear_probe cannot be part of a composition: it trains the head, which every"),
        ("x=hard_prompt+lora", "hard_prompt cannot be part of a composition: it trains nothing"),
        ("lora+second=dora", "lora and second both sit in LoRA's place; take one of them"),
        ("prefix+lora+prompt", "prefix and prompt both put virtual tokens before the input; take one of them"),
    ],
)
def test_compose_refuses_invalid_name_in_one_line(member: str, message: str) -> None:
    with pytest.raises(MethodError) as raised:
        methods.get(f"compose:{member}")
    assert str(raised.value).startswith(f"compose:{member}: {message}")
    assert "\n" not in str(raised.value)


def test_compose_refuses_unknown_part() -> None:
    with pytest.raises(KeyError, match="lroa"):
        methods.get("compose:adapter+lroa")
    with pytest.raises(KeyError, match="lroa"):
        search_spaces.get("compose:adapter+lroa")


def test_compose_params_are_flat_and_checked_by_part() -> None:
    kind = methods.get("compose:serial=adapter+lora").params_type
    params = kind.from_dict({"batch_size": 8, "serial.bottleneck": 4, "lora.rank": 2, "layer_1": False})
    assert params.parts["serial"].bottleneck == 4
    assert {part.batch_size for part in params.parts.values()} == {8}
    assert (params.parts["lora"].learning_rate, params.learning_rate) == (2e-4, 1e-3)
    flat = params.to_dict()
    assert {"batch_size", "serial.placement", "lora.learning_rate", "layer_1"} <= set(flat)
    assert not {"lora.batch_size", "serial.warmup", "lora.weight_decay"} & set(flat)
    assert kind.from_dict(flat) == params


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"serial.bottlneck": 4}, "serial: unknown parameter 'bottlneck'"),
        ({"adapter.bottleneck": 4}, "unknown parameter 'adapter.bottleneck'; known: .*serial.bottleneck"),
        ({"serial.batch_size": 4}, "unknown parameter 'serial.batch_size'"),
        ({"serial.bottleneck": 0}, "serial: bottleneck is 0; it must be at least 1"),
        ({"batch_size": 0}, "batch_size is 0; it must be at least 1"),
        ({"layer_1": 1}, "layer_1 is 1; it must be true or false"),
        ({"lora.on": "no"}, "lora.on is 'no'; it must be true or false"),
        ({"other.layer_1": True}, "unknown parameter 'other.layer_1'"),
    ],
)
def test_compose_params_refuse_invalid_value_in_one_line(values, message) -> None:
    with pytest.raises(MethodError, match=message):
        methods.get("compose:serial=adapter+lora").params_type.from_dict(values)


def test_compose_trains_each_part_at_its_own_rate(make_case) -> None:
    case = make_case("encoder", "classification", "nf4")
    rates = {"learning_rate": 1e-2, "adapter__learning_rate": 1e-3, "lora__learning_rate": 2e-3, "lora__lr_ratio": 4.0}
    attached = attach(case, "adapter+lora", **rates)
    names = {id(p): name for name, p in attached.trainable().items()}
    rate_by_name = {names[id(p)]: 1e-2 * group.multiplier for group in attached.groups for p in group.parameters}
    expected = {"adapter.": 1e-3, "lora_A": 2e-3, "lora_B": 8e-3, "classifier": 1e-2, "pooler": 1e-2}
    for mark, rate in expected.items():
        assert {round(value, 9) for name, value in rate_by_name.items() if mark in name} == {rate}, mark


@pytest.mark.parametrize("member", ["lora+adapter", "adapter+ia3+lora", "adapter+prefix+lora", "lora+hra=peft:hra"])
def test_compose_part_equals_its_method_alone(member: str, make_case, tmp_path: Path) -> None:
    """A part's folder, loaded by its own method on a bare view, gives the logits of the composition."""
    case = make_case("decoder", "causal-lm", "none")
    for name in member.replace("hra=", "").split("+"):
        attached = attach(case, member)
        part = name.removeprefix("peft:")
        mark = {"lora": "lora_", "ia3": "ia3_", "adapter": "adapter.", "prefix": "prompt_encoder", "hra": "hra_"}
        nudge([p for n, p in attached.trainable().items() if mark[part] in n])
        folder = tmp_path / part
        folder.mkdir()
        attached.save(folder)
        assert {f.name for f in folder.iterdir() if f.is_dir()} == {p.name for p in parse(member)}
        forget_wrappers(folder / part)
        alone = methods.load_adapter(case.view(), folder / part, case.shared.context)
        alone.train(False)
        before = case.logits(attached.module)
        if "prefix" in member and part != "prefix":
            continue  # even zeros take attention away from the input
        torch.testing.assert_close(case.logits(alone.module), before, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(before, case.logits(case.view()), atol=1e-3)


def forget_wrappers(folder: Path) -> None:
    """Rename the tensors of a part as if no other part had wrapped their layers."""
    for file in folder.glob("*.safetensors"):
        save_file({name.replace(".base_layer", ""): tensor for name, tensor in load_file(file).items()}, file)


def test_compose_later_part_wraps_earlier_part(make_case) -> None:
    """Longhand: the adapter behind a layer reads the layer with its low-rank update in it."""
    case = make_case("encoder", "classification", "none")
    attached = attach(case, "adapter+lora", lora__rank=2, adapter__bottleneck=3)
    nudge(attached.trainable().values())
    layer = blocks(attached.module)[1].feed_forward_out[0]
    serial, plain = attached.module.get_submodule(layer), case.view().get_submodule(layer)
    lora, adapter = serial.base_layer, serial.adapter
    x = torch.randn(2, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        a, b = lora.lora_A["default"].weight.double(), lora.lora_B["default"].weight.double()
        z = x.double() @ (plain.weight.double() + lora.scaling["default"] * b @ a).T + plain.bias.double()
        inner = torch.relu(z @ adapter.down.weight.double().T + adapter.down.bias.double())
        y = z + inner @ adapter.up.weight.double().T + adapter.up.bias.double()
        torch.testing.assert_close(serial(x).double(), y, atol=1e-5, rtol=1e-5)


def test_compose_puts_serial_and_parallel_adapters_at_one_layer(make_case) -> None:
    case = make_case("encoder", "classification", "none")
    placed = {"serial__placement": "pfeiffer", "parallel__placement": "parallel"}
    attached = attach(case, "serial=adapter+parallel=adapter", **placed)
    nudge(attached.trainable().values())
    outer = attached.module.get_submodule(blocks(attached.module)[0].feed_forward_out[0])
    assert (type(outer).__name__, type(outer.base_layer).__name__) == ("ParallelAdapter", "SerialAdapter")
    assert torch.isfinite(case.logits(attached.module)).all()


def inside(attached: Attached, mark: str) -> set[int]:
    """Return the positions of the blocks with a trained parameter whose name contains ``mark``."""
    names = {id(p): name for name, p in attached.trainable().items()}
    return {
        number
        for number, block in enumerate(blocks(attached.module))
        for p in block.module.parameters()
        if mark in names.get(id(p), "")
    }


def test_compose_switches_limit_blocks_of_parts(make_case) -> None:
    case = make_case("encoder", "classification", "nf4")
    attached = attach(case, "adapter+lora", layer_0=False, lora__layer_2=False, adapter__layer_1=True)
    assert (inside(attached, "adapter."), inside(attached, "lora_")) == ({1, 2}, {1})
    assert kinds(attached) == {"adapter", "lora", "head"}


@pytest.mark.parametrize(
    "off", [{"lora__on": False}, {"lora__layer_0": False, "lora__layer_1": False, "lora__layer_2": False}]
)
def test_compose_leaves_out_part_switched_off_everywhere(off, make_case, tmp_path: Path) -> None:
    case = make_case("encoder", "classification", "nf4")
    attached = attach(case, "adapter+lora", **off)
    assert kinds(attached) == {"adapter", "head"}
    nudge(attached.trainable().values())
    attached.save(tmp_path)
    back = methods.load_adapter(case.view(), tmp_path, case.shared.context)
    back.train(False)
    assert torch.equal(case.logits(back.module), case.logits(attached.module))


@pytest.mark.parametrize(
    ("member", "params", "message"),
    [
        (
            "adapter+lora",
            {"layer_7": True},
            "layer_7 names a block that does not exist: the backbone has 3 blocks, layer_0 to layer_2",
        ),
        (
            "adapter+lora",
            {"lora__layer_3": False},
            "lora.layer_3 names a block that does not exist: the backbone has 3 blocks",
        ),
        ("adapter+lora", {"lora__on": False, "adapter__on": False}, "every part of compose:adapter.lora is switched"),
        ("adapter+prefix", {"layer_1": False}, "prefix.* sits in every block"),
    ],
)
def test_compose_refuses_invalid_switches_in_one_line(member, params, message, make_case) -> None:
    with pytest.raises(MethodError, match=message) as raised:
        attach(make_case("encoder", "classification", "nf4"), member, **params)
    assert "\n" not in str(raised.value)


def test_compose_ignores_layer_switches_of_part_switched_off(make_case) -> None:
    case = make_case("encoder", "classification", "nf4")
    off = {"prefix__on": False, "layer_1": False}
    assert inside(attach(case, "adapter+prefix", **off), "adapter.") == {0, 2}


@pytest.mark.parametrize("member", ["lora+ia3", "last_layers+lora", "ia3+hra=peft:hra"])
def test_compose_merged_equals_unmerged(member: str, make_case) -> None:
    case = make_case("decoder", "classification", "nf4")
    attached = attach(case, member)
    nudge(attached.trainable().values())
    before, checksum = case.logits(attached.module), case.shared.checksum()
    assert attached.merge is not None
    merged = attached.merge()
    torch.testing.assert_close(case.logits(merged), before, atol=1e-4, rtol=1e-4)
    assert {type(m).__module__.partition(".")[0] for m in merged.modules()}.isdisjoint({"peft"})
    assert case.shared.checksum() == checksum


def test_compose_refuses_two_parts_that_change_one_weight(make_case) -> None:
    with pytest.raises(MethodError, match=r"second computes with the weight of bert.*, which another part changes"):
        attach(make_case("encoder", "classification", "nf4"), "peft:hra+second=peft:oft")


def test_compose_merges_only_if_all_parts_do() -> None:
    assert methods.get("compose:lora+ia3").supports_merge
    assert not methods.get("compose:lora+adapter").supports_merge


def test_compose_reads_backbone_copies_from_folder(make_case, tmp_path: Path) -> None:
    """The names in the folder do not contain the wrappers that other parts have put around the layers."""
    case = make_case("encoder", "classification", "nf4")
    attached = attach(case, "adapter+lora+last_layers")
    nudge(attached.trainable().values())
    attached.save(tmp_path)
    without = dataclasses.replace(case.shared.context, original=missing)
    back = methods.load_adapter(case.shared.view(99), tmp_path, without)
    back.train(False)
    assert torch.equal(case.logits(back.module), case.logits(attached.module))


def missing(name: str) -> Tensor:
    raise KeyError(f"{name} was not kept")


def test_compose_refuses_two_parts_that_replace_forward(make_case) -> None:
    with pytest.raises(MethodError, match="prefix and cartridge both replace the model's forward pass; take one"):
        attach(make_case("decoder", "causal-lm", "nf4"), "prefix+peft:cartridge")


def test_compose_keeps_schedule_penalty_and_state_of_part(make_case) -> None:
    """AdaLoRA resumes with the ranks that it had when the trial was paused."""
    case, fields = make_case("decoder", "classification", "nf4"), {"adalora__tinit": 0.0, "adalora__tfinal": 0.25}
    attached, alone = (attach(case, member, **fields) for member in ("adapter+adalora+prefix", "adalora"))
    assert attached.penalty is not None
    assert alone.penalty is not None
    torch.testing.assert_close(attached.penalty(), alone.penalty())
    ranks = [count(attached)]
    for step in range(1, 5):
        (attached.module(**case.batch(), labels=case.labels()).loss + attached.penalty()).backward()
        torch.optim.SGD(attached.trainable().values(), lr=0.1).step()
        attached.on_step(step, 8)
        attached.module.zero_grad()
        ranks.append(count(attached))
    assert ranks[-1] < ranks[0]
    assert {name.partition(".")[0] for name in attached.state()} == {"adalora"}
    again = attach(case, "adapter+adalora+prefix", **fields)
    with torch.no_grad():
        for name, parameter in again.trainable().items():
            parameter.copy_(attached.trainable()[name])
    again.load_state({name: tensor.clone() for name, tensor in attached.state().items()})
    for name, tensor in attached.state().items():
        assert torch.equal(again.state()[name], tensor), name


def count(attached: Attached) -> int:
    """Count the entries of AdaLoRA's diagonals within budget; before the first step, all are zero and count."""
    diagonals = [p for name, p in attached.trainable().items() if "lora_E" in name]
    if not any(bool(p.any()) for p in diagonals):
        return sum(p.numel() for p in diagonals)
    return sum(int(p.count_nonzero()) for p in diagonals)


def test_compose_space_overrides_search_switches(make_case) -> None:
    name, switch = "compose:serial=adapter+lora", {"choices": [True, False]}
    space = resolve(name, {"layer_0": switch, "serial.layer_2": switch, "lora.on": {"value": False}})
    plain = search_spaces.get(name)
    assert set(space.distributions) - set(plain.distributions) == {"layer_0", "serial.layer_2", "lora.on"}
    assert (space.default["layer_0"], space.default["serial.layer_2"], space.default["lora.on"]) == (True, True, False)
    params = methods.get(name).params_type.from_dict(dict(space.default))
    assert params.layers("serial", 3) is None
    assert params.layers("lora", 3) == frozenset()
    assert plain.default["lora.learning_rate"] == search_spaces.get("lora").default["learning_rate"]
    assert set(plain.distributions) == set(plain.default)
    assert "lora.batch_size" not in plain.distributions


def test_compose_saves_head_outside_parts(make_case, tmp_path: Path) -> None:
    case = make_case("encoder", "classification", "nf4")
    attached = attach(case, "lora+prefix+adapter")
    head = {name for name in attached.trainable() if "classifier" in name or "pooler" in name}
    plain = {name for name, _ in case.view().named_parameters() if "classifier" in name or "pooler" in name}
    assert {name.removeprefix("base_model.") for name in head} == plain
    attached.save(tmp_path)
    assert set(load_file(tmp_path / "adapter.safetensors")) == plain
    part_names = {name for file in tmp_path.glob("*/*.safetensors") for name in load_file(file)}
    assert part_names
    assert not [name for name in part_names if "classifier" in name or "pooler" in name]


def test_compose_does_not_train_replaced_parameters(make_case) -> None:
    """Bitfit trains the biases of norms, unless norm tuning replaces the norms."""
    case = make_case("encoder", "classification", "nf4")
    attached = attach(case, "bitfit+norm_tuning+lora")
    attached.module(**case.batch(), labels=case.labels()).loss.backward()
    assert [name for name, p in attached.trainable().items() if p.grad is None] == []
    norms = {name for name in attached.trainable() if "LayerNorm" in name}
    assert norms
    assert all("ln_tuning_layers" in name for name in norms)


def test_blocks_ignore_layers_that_methods_added(make_case) -> None:
    """Even where it has wrapped more than one layer."""
    view = make_case("encoder", "classification", "none").view()
    bare = blocks(view)[0].linears
    attention = nn.Module()
    attention.base_layer, attention.own = view.bert.encoder.layer[0].attention, nn.Linear(32, 32)
    view.bert.encoder.layer[0].attention = attention
    linears = blocks(view)[0].linears
    assert {role: [n.replace(".base_layer", "") for n in names] for role, names in linears.items()} == {
        role: list(names) for role, names in bare.items()
    }


def test_blocks_are_unchanged_by_wrappers(make_case) -> None:
    case = make_case("encoder", "classification", "nf4")
    attached = attach(case, "adapter+lora+hra=peft:hra")
    bare = {b.name: b.linears for b in blocks(case.view())}
    assert {b.name: b.linears for b in blocks(attached.module)} == bare
    assert isinstance(attached.module, nn.Module)
