"""What we use of peft beyond its public interface."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import AdaLoraConfig, LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn

from .reliance import parameters, relied_on


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return Model()


@relied_on("_register_custom_module", by="methods/parts/low_rank.py")
@relied_on("peft.tuners.lora.layer.Linear.forward", by="methods/parts/lora_layer.py")
def test_peft_lora_takes_layer_class_of_ours(model: nn.Module) -> None:
    from peft.tuners.lora import Linear

    class Ours(Linear):
        """Stands in for peft's own layer."""

    config = LoraConfig(r=2, target_modules=["layer"])
    config._register_custom_module({nn.Linear: Ours})
    layer = get_peft_model(model, config).get_base_model().layer
    assert type(layer) is Ours
    assert parameters(Linear.forward) == "self, x, *args, **kwargs"
    assert layer.lora_variant == {}
    assert (layer.merged, layer.disable_adapters, list(layer.active_adapters)) == (False, False, ["default"])
    assert (layer.scaling["default"], layer.lora_A["default"].weight.shape) == (4.0, (2, 4))
    assert layer.base_layer is layer.get_base_layer()


@relied_on("peft.tuners.lora.variants.DoraLinearVariant.forward", by="methods/parts/dora_layer.py")
def test_peft_dora_is_a_variant_of_its_layer(model: nn.Module) -> None:
    from peft.tuners.lora.variants import DoraLinearVariant

    assert parameters(DoraLinearVariant.forward) == "module, active_adapter, x, result, **kwargs"
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["layer"], use_dora=True))
    layer = adapted.get_base_model().layer
    assert type(layer.lora_variant["default"]) is DoraLinearVariant
    assert layer.lora_magnitude_vector["default"].weight.shape == (4,)


def test_peft_lora_layers_take_second_adapter() -> None:
    from peft.tuners.lora import LoraLayer

    assert parameters(LoraLayer.update_layer).startswith("self, adapter_name, r, lora_alpha, config")


def test_peft_adalora_allocator_keeps_its_measurements(model: nn.Module) -> None:
    """``methods/parts/adalora_budget.py`` puts these into checkpoints, and sets the schedule's fields."""
    config = AdaLoraConfig(target_modules=["layer"], total_step=10, tinit=1, tfinal=1, deltaT=1)
    adapted: PeftModel = get_peft_model(model, config)
    allocator = adapted.base_model.rankallocator
    assert allocator.ipt == allocator.exp_avg_ipt == allocator.exp_avg_unc == {}
    adapted(torch.ones(1, 4)).sum().backward()
    adapted.base_model.update_and_allocate(2)
    assert allocator.ipt.keys() == allocator.exp_avg_ipt.keys() == allocator.exp_avg_unc.keys() != set()
    assert adapted.peft_config["default"].rank_pattern.keys() == {"layer.lora_E.default"}


def test_peft_marks_an_adapted_model(model: nn.Module) -> None:
    """``methods/families/compose.py`` takes the mark off again, so that another method can be attached."""
    get_peft_model(model, LoraConfig(target_modules=["layer"]))
    assert "peft_config" in model.__dict__


def test_peft_tuners_with_forward_of_their_own() -> None:
    """``methods/families/compose_combine.py`` tells by it whether a method adds to the loss."""
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
    from peft.tuners.tuners_utils import BaseTuner

    tuners: dict[str, Any] = {kind.value: tuner for kind, tuner in PEFT_TYPE_TO_TUNER_MAPPING.items()}
    changed = {kind for kind, t in tuners.items() if issubclass(t, BaseTuner) and t.forward is not BaseTuner.forward}
    assert changed == {"ADALORA", "POLY", "SHADOW", "XLORA"}
