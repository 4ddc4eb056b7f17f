"""The files of a saved adapter, and which of them ``load_adapter`` refuses."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import methods
from methods.base.spec import Attached, MethodError

pytestmark = pytest.mark.filterwarnings(
    # peft 0.21 uses a name that transformers 5 has deprecated, when it attaches
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",
)


@pytest.fixture
def case(make_case):
    return make_case("encoder", "classification", "nf4")


def saved(case, name: str, folder: Path, **params) -> Attached:
    spec = methods.get(name)
    attached = case.attach(spec, spec.params_type(**params))
    attached.save(folder)
    return attached


def edit(folder: Path, **changes) -> None:
    file = folder / "method.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def refused(case, folder: Path) -> str:
    with pytest.raises(MethodError) as caught:
        methods.load_adapter(case.view(), folder, case.shared.context)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_method_json_describes_saved_adapter(case, tmp_path):
    attached = saved(case, "adapter", tmp_path, bottleneck=6)
    record = json.loads((tmp_path / "method.json").read_text())
    assert record["format"] == 1
    assert (record["method"], record["task"]) == ("adapter", "classification")
    assert record["head"] == list(case.shared.context.head)
    assert record["backbone"] == case.shared.context.backbone
    assert record["params"]["bottleneck"] == 6
    assert attached.trainable()


def test_load_adapter_refuses_folder_without_adapter(case, tmp_path):
    assert "is not an adapter" in refused(case, tmp_path)


def test_load_adapter_refuses_other_format(case, tmp_path):
    saved(case, "adapter", tmp_path)
    edit(tmp_path, format=2)
    assert "has format 2; this version reads 1" in refused(case, tmp_path)


def test_load_adapter_refuses_other_task(case, tmp_path):
    saved(case, "adapter", tmp_path)
    edit(tmp_path, task="causal-lm")
    assert "was trained for causal-lm and cannot do classification" in refused(case, tmp_path)


@pytest.mark.parametrize("method", ["lorra", "_folder", "../evil"])
def test_load_adapter_refuses_unknown_method(case, tmp_path, method):
    saved(case, "adapter", tmp_path)
    edit(tmp_path, method=method)
    assert "names an unknown method" in refused(case, tmp_path)


@pytest.mark.parametrize("name", ["adapter", "lora", "prefix"])
def test_load_adapter_refuses_other_shapes(case, tmp_path, name):
    size = {"adapter": "bottleneck", "lora": "rank", "prefix": "tokens"}[name]
    attached = saved(case, name, tmp_path, **{size: 6})
    edit(tmp_path, params={**json.loads((tmp_path / "method.json").read_text())["params"], size: 5})
    assert "does not fit this backbone" in refused(case, tmp_path)
    assert attached.trainable()


@pytest.mark.parametrize("name", ["adapter", "lora"])
def test_load_adapter_refuses_missing_tensors(case, tmp_path, name):
    key, wide, narrow = {
        "adapter": ("placement", "houlsby", "pfeiffer"),
        "lora": ("targets", "all_linear", "attention_qv"),
    }[name]
    saved(case, name, tmp_path, **{key: narrow})
    edit(tmp_path, params={**json.loads((tmp_path / "method.json").read_text())["params"], key: wide})
    assert "does not fit this backbone" in refused(case, tmp_path)


def test_load_adapter_reads_backbone_weights_from_folder_alone(case, tmp_path):
    attached = saved(case, "full", tmp_path)
    attached.train(False)

    def not_at_hand(name: str) -> torch.Tensor:
        raise AssertionError(f"the checkpoint was asked for {name}")

    context = replace(case.shared.context, original=not_at_hand)
    back = methods.load_adapter(case.view(), tmp_path, context)
    back.train(False)
    assert torch.equal(case.logits(back.module), case.logits(attached.module))
