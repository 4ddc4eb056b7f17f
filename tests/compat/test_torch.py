"""What we use of torch beyond its public interface."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .reliance import relied_on

CHECKPOINTED = "orchestrator/engine/checkpointed_blocks.py"
LAZY = "methods/base/lazy_weights.py"
DEPTH = "orchestrator/engine/frozen_depth.py"
COSTS = "orchestrator/planning/estimates/cost_counter.py"
KERNELS = "orchestrator/planning/estimates/meta_kernels.py"
STAGE = "methods/parts/source_stage.py"
VIEW = "orchestrator/engine/pack_view.py"


@relied_on(
    "_parameters",
    by=(
        LAZY,
        DEPTH,
        "methods/base/trainable.py",
        "methods/bitfit.py",
        "methods/norm_tuning.py",
        "methods/parts/attention_extension.py",
        "methods/parts/low_rank_init.py",
        "orchestrator/backbone/frozen.py",
    ),
)
def test_torch_modules_keep_parameters_in_dict() -> None:
    layer = nn.Linear(2, 3)
    assert layer._parameters == {"weight": layer.weight, "bias": layer.bias}
    assert nn.Linear(2, 3, bias=False)._parameters["bias"] is None


@relied_on("_modules", by=(DEPTH, VIEW, "methods/base/architecture.py", "methods/families/compose.py"))
def test_torch_modules_keep_children_in_dict() -> None:
    first = nn.Identity()
    assert nn.Sequential(first)._modules == {"0": first}


@relied_on("_buffers", by=DEPTH)
def test_torch_modules_keep_buffers_in_dict() -> None:
    norm = nn.BatchNorm1d(2)
    assert norm._buffers["running_mean"] is norm.running_mean


@relied_on("_forward_hooks", by=VIEW)
@relied_on("_forward_hooks", "_forward_pre_hooks", by=(DEPTH, STAGE))
@relied_on("_forward_pre_hooks_with_kwargs", by=STAGE)
def test_torch_modules_keep_hooks_in_dicts() -> None:
    first, second, called = nn.Identity(), nn.Identity(), []
    first.register_forward_pre_hook(lambda module, args, kwargs: called.append("before"), with_kwargs=True)
    first.register_forward_hook(lambda module, args, output: called.append("after"))
    assert (len(first._forward_pre_hooks), len(first._forward_hooks)) == (1, 1)
    second._forward_pre_hooks, second._forward_hooks = first._forward_pre_hooks, first._forward_hooks
    second._forward_pre_hooks_with_kwargs = first._forward_pre_hooks_with_kwargs
    second(torch.ones(1))
    assert called == ["before", "after"]


@relied_on(
    "=forward",
    by=(
        "methods/multitask_prompt.py",
        "methods/parts/attention_extension.py",
        CHECKPOINTED,
        "orchestrator/engine/joint_pass.py",
        "orchestrator/engine/skip_prefix.py",
        "orchestrator/planning/estimates/step.py",
        "orchestrator/tasks/output_head.py",
    ),
)
def test_torch_modules_call_forward_of_instance() -> None:
    layer = nn.Linear(2, 3)
    layer.forward = partial(torch.mul, 2)  # type: ignore[method-assign]
    assert layer(torch.ones(1)).item() == 2
    del layer.forward
    assert layer(torch.ones(1, 2)).shape == (1, 3)


@relied_on("torch.utils.checkpoint.checkpoint", by=CHECKPOINTED)
def test_torch_checkpoint_runs_a_function_again_in_its_contexts() -> None:
    events: list[str] = []

    @contextmanager
    def noted(name: str) -> Iterator[None]:
        events.append(name)
        yield

    def square(x: Tensor, *, factor: int) -> Tensor:
        return factor * x * x

    x = torch.tensor(3.0, requires_grad=True)
    y = checkpoint(
        square,
        x,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=lambda: (noted("forward"), noted("again")),
        factor=2,
    )
    y.backward()
    assert events == ["forward", "again"]
    assert x.grad is not None
    assert x.grad.item() == 12.0


@relied_on("torch.utils.checkpoint.checkpoint", by="orchestrator/tasks/token_losses.py")
def test_torch_checkpoint_trains_what_its_input_does_not_need() -> None:
    layer, x = nn.Linear(3, 3), torch.ones(2, 3)  # the input needs no gradient
    checkpoint(nn.Sequential(layer, nn.Tanh()), x, use_reentrant=False).sum().backward()
    (expected,) = torch.autograd.grad(layer(x).tanh().sum(), [layer.weight])
    assert layer.weight.grad is not None
    assert torch.equal(layer.weight.grad, expected)


@relied_on("=__class__", by=LAZY)
def test_torch_modules_take_properties_of_changed_class() -> None:
    class Plain(nn.Linear):
        """Keeps no weight of its own."""

    layer = Plain(2, 3)
    del layer.weight
    layer.__class__ = type("Lazy", (Plain,), {"weight": property(lambda module: torch.zeros(3, 2))})
    assert layer.weight.shape == (3, 2)


@relied_on("_make_wrapper_subclass", "torch.utils._pytree.tree_map_only", "torch.Tensor.__torch_dispatch__", by=LAZY)
def test_torch_wrapper_tensors_dispatch_to_their_class() -> None:
    from torch.utils._pytree import tree_map_only

    class Wrapper(Tensor):
        @classmethod
        def __torch_dispatch__(  # type: ignore[override]
            cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
        ) -> Any:
            opened = tree_map_only(Wrapper, lambda wrapper: torch.ones(wrapper.shape), (args, kwargs or {}))
            return func(*opened[0], **opened[1])

    wrapper = Tensor._make_wrapper_subclass(Wrapper, (2, 3), dtype=torch.float32, device=torch.device("cpu"))
    assert (type(wrapper), wrapper.shape, wrapper.dtype) == (Wrapper, (2, 3), torch.float32)
    assert (wrapper + 1).sum().item() == 12


@relied_on("_version", by="methods/parts/dora_layer.py")
def test_torch_tensors_count_writes() -> None:
    tensor = torch.zeros(1)
    before = tensor._version
    tensor.add_(1)
    assert tensor._version > before


@relied_on("_is_view", by="orchestrator/backbone/frozen.py")
def test_torch_tensors_know_views() -> None:
    tensor = torch.zeros(2)
    assert tensor[:1]._is_view()
    assert not tensor._is_view()


@relied_on("_is_avx512_bf16_supported", "_is_amx_tile_supported", by="orchestrator/backbone/frozen.py")
def test_torch_knows_processor_instructions() -> None:
    assert torch.cpu._is_avx512_bf16_supported() in (True, False)
    assert torch.cpu._is_amx_tile_supported() in (True, False)


@relied_on("_C", "_InferenceMode", by="orchestrator/engine/thread_state.py")
def test_torch_inference_mode_lasts_as_long_as_its_guard() -> None:
    guard = torch._C._InferenceMode(True)
    assert torch.is_inference_mode_enabled()
    del guard
    assert not torch.is_inference_mode_enabled()


@relied_on(
    "_cdata",
    "torch.utils._python_dispatch.TorchDispatchMode",
    "torch.utils._python_dispatch.TorchDispatchMode.__torch_dispatch__",
    "torch.utils._pytree.tree_leaves",
    by=COSTS,
)
def test_torch_dispatch_mode_sees_every_operator() -> None:
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            names.append(func.overloadpacket.__name__)
            return func(*args, **kwargs or {})

    names: list[str] = []
    tensor = torch.ones(2, 2, device="meta", requires_grad=True)
    with Recorder():
        (tensor @ tensor).sum().backward()
    assert names.count("mm") == 3, "the backward pass goes past the mode"
    assert tree_leaves((1, [2, {"a": 3}])) == [1, 2, 3]
    assert tensor.untyped_storage()._cdata == tensor.view(-1).untyped_storage()._cdata
    assert tensor.untyped_storage()._cdata != torch.ones(2, device="meta").untyped_storage()._cdata


@relied_on("torch.overrides.TorchFunctionMode.__torch_function__", by=KERNELS)
def test_torch_function_mode_sees_attention() -> None:
    from torch.nn import functional as F
    from torch.overrides import TorchFunctionMode

    class Recorder(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            functions.append(func)
            return func(*args, **kwargs or {})

    functions: list[Any] = []
    tensor = torch.ones(1, 1, 2, 4)
    with Recorder():
        F.scaled_dot_product_attention(tensor, tensor, tensor)
        F.dropout(tensor, 0.5)
    assert F.scaled_dot_product_attention in functions
    assert F.dropout in functions


@relied_on("_index_put_impl_", "_local_scalar_dense", by=KERNELS)
@pytest.mark.parametrize(
    ("operator", "call"),
    [
        ("_index_put_impl_", lambda: torch.zeros(2, requires_grad=True)[torch.tensor([0, 0])].sum().backward()),
        ("_local_scalar_dense", lambda: torch.ones(1).item()),
    ],
)
def test_torch_has_operators_that_need_numbers(operator: str, call: Any) -> None:
    assert getattr(torch.ops.aten, operator).default
    call()


def test_torch_linear_takes_weight_from_property() -> None:
    """``FrozenLinear`` is an ``nn.Linear`` without a parameter ``weight``."""

    class Frozen(nn.Linear):
        def __init__(self) -> None:
            nn.Module.__init__(self)
            self.in_features, self.out_features = 2, 3
            self.register_parameter("bias", None)

        @property
        def weight(self) -> Tensor:  # type: ignore[override]
            return torch.ones(3, 2)

    assert Frozen()(torch.ones(1, 2)).tolist() == [[2, 2, 2]]
    assert not list(Frozen().parameters())


@relied_on("_foreach_copy_", by="orchestrator/engine/row_parts.py")
@relied_on("_foreach_copy_", "_foreach_add_", "_foreach_zero_", by="orchestrator/engine/parameter_stack.py")
def test_torch_copies_adds_and_zeroes_lists_of_tensors() -> None:
    stack = torch.zeros(2, 3, 4)
    parts = [stack[0, :2], stack[1, :, :3]]
    torch._foreach_copy_(parts, [torch.ones(2, 4), torch.full((3, 3), 2.0)])
    torch._foreach_add_(parts, [torch.ones(2, 4), torch.ones(3, 3)])
    assert stack.sum() == 8 * 2 + 9 * 3
    torch._foreach_zero_([stack])
    assert not stack.any()


@relied_on("_foreach_norm", by="orchestrator/engine/gradient_norms.py")
@relied_on("_foreach_mul", by="methods/parts/dora_layer.py")
def test_torch_takes_norms_and_multiples_of_lists_of_tensors() -> None:
    tensors = [torch.tensor([[3.0, 4.0]]), torch.tensor(2.0), torch.zeros(3)]
    assert [norm.item() for norm in torch._foreach_norm(tensors)] == [5, 2, 0]
    assert [tensor.sum().item() for tensor in torch._foreach_mul(tensors, [2.0, 3.0, 4.0])] == [14, 6, 0]
