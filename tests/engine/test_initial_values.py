"""The weights that a trial starts with, on a processor and on another device."""

from typing import Any

import pytest
import torch

import methods
from methods.base.spec import Context, MethodError
from orchestrator.backbone.shared import SharedBackbone

from .fake_gpu import DEVICE, DeviceTensor, FakeDevice, plain_classifier

HEAD = ("classifier",)


def initial_values(method: str, model: Any) -> dict[str, torch.Tensor]:
    context = Context(
        task="classification",
        task_type="SEQ_CLS",
        backbone="tiny",
        head=HEAD,
        original=lambda name: model.get_parameter(name).detach().cpu(),
    )
    spec = methods.get(method)
    params = spec.params_type.from_dict({"bottleneck": 8} if method == "adapter" else {})
    view = SharedBackbone(model, context, HEAD, False).view(3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return dict(spec.attach(view, params, context).trainable())


@pytest.mark.parametrize("method", methods.names())
def test_initial_values_are_the_same_on_every_device(method: str) -> None:
    """The generators of processors and GPUs draw other numbers from the same seed."""
    try:
        expected = initial_values(method, plain_classifier())
    except MethodError as error:
        pytest.skip(str(error))
    with FakeDevice():
        values = initial_values(method, plain_classifier().to(DEVICE))
        assert values.keys() == expected.keys()
        for name, value in values.items():
            assert isinstance(value, DeviceTensor), name
            torch.testing.assert_close(value.detach().cpu(), expected[name].detach(), msg=name)
