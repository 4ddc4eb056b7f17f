"""Bottleneck adapters: a small residual network after, or beside, the parts of every block.

``y = z + s * up(phi(down(z)))``, with ``up`` zero at the start, so that the adapter starts as the identity.

- ``houlsby``: after attention and after the feed-forward, before their residual sums (arXiv:1902.00751);
- ``pfeiffer``: after the feed-forward alone (arXiv:2005.00247);
- ``parallel``: beside the feed-forward, ``y = feed_forward(x) + s * up(phi(down(x)))`` (arXiv:2110.04366).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.base.architecture import Block, blocks, innermost
from methods.base.spec import Attached, Category, Context, Hyperparameters, MethodError, MethodSpec
from methods.base.trainable import attached, train_head

Placement = Literal["houlsby", "pfeiffer", "parallel"]
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}


@dataclass(frozen=True, kw_only=True)
class AdapterParams(Hyperparameters):
    """Parameters of bottleneck adapters.

    Args:
        placement: ``houlsby``, ``pfeiffer`` or ``parallel``, as above.
        bottleneck: hidden size of the adapter.
        activation: ``phi``: ``relu``, ``gelu`` or ``silu``.
        scale: ``s``; He et al. use 4 beside the feed-forward.
        dropout: dropout rate of the input of ``down``.
    """

    learning_rate: float = 1e-3
    placement: Placement = "pfeiffer"
    bottleneck: int = 64
    activation: str = "relu"
    scale: float = 1.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(
            self.placement in ("houlsby", "pfeiffer", "parallel"), "placement", "houlsby, pfeiffer or parallel"
        )
        self.require_in_range("bottleneck", "scale", "dropout")
        self.require(self.activation in ACTIVATIONS, "activation", "relu, gelu or silu")


class Bottleneck(nn.Module):
    """``s * up(phi(down(z)))``, for ``z`` and a result of shape ``(..., width)``.

    Args:
        width: size of the residual stream; trainable parameters grow as ``2 * width * bottleneck``.
        params: parameters of the method.
        dtype: dtype of the products.
    """

    def __init__(self, width: int, params: AdapterParams, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.dtype = dtype
        self.dropout = nn.Dropout(params.dropout)
        self.down = nn.Linear(width, params.bottleneck)
        self.activation = ACTIVATIONS[params.activation]()
        self.up = nn.Linear(params.bottleneck, width)
        self.scale = params.scale
        with torch.no_grad():
            for layer in (self.down, self.up):
                layer.bias.zero_()
            self.up.weight.zero_()

    def forward(self, z: Tensor) -> Tensor:
        """Return the term that is added to the residual stream, in the dtype of ``z``."""
        hidden = self.activation(self._linear(self.down, self.dropout(z.to(self.dtype))))
        return (self.scale * self._linear(self.up, hidden)).to(z.dtype)

    def _linear(self, layer: nn.Linear, x: Tensor) -> Tensor:
        return F.linear(x, layer.weight.to(self.dtype), layer.bias.to(self.dtype))


class LayerWrapper(nn.Module):
    """A module around a frozen layer; attributes that it lacks are the layer's."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = layer

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base_layer"), name)


class SerialAdapter(LayerWrapper):
    """A frozen layer with a bottleneck after it."""

    def __init__(self, layer: nn.Module, adapter: Bottleneck) -> None:
        super().__init__(layer)
        self.adapter = adapter

    def forward(self, x: Tensor) -> Tensor:
        """Map shape ``(..., in)`` to ``(..., width)``."""
        z: Tensor = self.base_layer(x)
        term: Tensor = self.adapter(z)
        return z + term


class InputRecorder(LayerWrapper):
    """The first layer of a feed-forward, which records its input for :class:`ParallelAdapter`."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__(layer)
        self.inputs: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output."""
        self.inputs[:] = [x]
        y: Tensor = self.base_layer(x)
        return y


class ParallelAdapter(LayerWrapper):
    """The last layer of a feed-forward, with a bottleneck that reads the feed-forward's input."""

    def __init__(self, layer: nn.Module, adapter: Bottleneck, recorder: InputRecorder) -> None:
        super().__init__(layer)
        self.adapter = adapter
        self._inputs = recorder.inputs

    def forward(self, x: Tensor) -> Tensor:
        """Map shape ``(..., in)`` to ``(..., width)``."""
        y: Tensor = self.base_layer(x)
        term: Tensor = self.adapter(self._inputs.pop())
        return y + term


def attach(view: nn.Module, params: AdapterParams, context: Context) -> Attached:
    """Wrap the layers that the placement names, and let the head train.

    Raises:
        MethodError: if a block has no such layer, or is narrower than the bottleneck.
    """
    before = set(view.modules())
    for block in blocks(view, context.layers):
        _wrap(view, block, params, context)
    heads = train_head(view, context)
    active = [m for m in view.modules() if m not in before]
    active += [part for head in heads for part in head.modules()]
    return attached(view, "adapter", params, context, active=active)


def _wrap(view: nn.Module, block: Block, params: AdapterParams, context: Context) -> None:
    if not block.feed_forward_out:
        raise MethodError(f"{block.name} has no feed-forward of linear layers to put an adapter at")
    device = next(view.parameters()).device
    if params.placement == "parallel":
        recorder = InputRecorder(view.get_submodule(block.feed_forward_in[0]))
        out = view.get_submodule(block.feed_forward_out[0])
        view.set_submodule(block.feed_forward_in[0], recorder)
        view.set_submodule(
            block.feed_forward_out[0], ParallelAdapter(out, _bottleneck(out, params, context).to(device), recorder)
        )
        return
    after_attention = block.linears.get("attention_output", ())
    if params.placement == "houlsby" and not after_attention:
        raise MethodError(f"{block.name} has no output projection of attention to put an adapter after")
    for name in (*(after_attention if params.placement == "houlsby" else ()), *block.feed_forward_out):
        layer = view.get_submodule(name)
        view.set_submodule(name, SerialAdapter(layer, _bottleneck(layer, params, context).to(device)))


def _bottleneck(layer: nn.Module, params: AdapterParams, context: Context) -> Bottleneck:
    inner = innermost(layer)
    width: int = inner.out_features if isinstance(inner, nn.Linear) else inner.nf  # type: ignore[assignment]
    if params.bottleneck > width:
        raise MethodError(f"bottleneck is {params.bottleneck}; it must be at most {width}, the width of the model")
    return Bottleneck(width, params, context.product_dtype)


SPEC = MethodSpec(
    name="adapter",
    category=Category.ADDITIVE,
    reference="Houlsby et al. (2019), arXiv:1902.00751; also arXiv:2005.00247 and arXiv:2110.04366",
    params_type=AdapterParams,
    attach=attach,
)
