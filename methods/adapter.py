"""Bottleneck adapters: a small residual network after, or beside, the parts of every block.

``y = z + s * up(phi(down(z)))``, with ``up`` zero at the start, so that it begins as the identity.

- ``houlsby``: after attention and after the feed-forward, before their residual sums (arXiv:1902.00751);
- ``pfeiffer``: after the feed-forward alone (arXiv:2005.00247);
- ``parallel``: beside the feed-forward, ``y = feed_forward(x) + s * up(phi(down(x)))`` (arXiv:2110.04366).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from methods.base.architecture import Block, blocks, innermost
from methods.base.spec import Attached, Category, Context, Hyperparameters, MethodError, MethodSpec
from methods.base.trainable import attached, train_head

Placement = Literal["houlsby", "pfeiffer", "parallel"]
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}


@dataclass(frozen=True, kw_only=True)
class AdapterParams(Hyperparameters):
    """Parameters of bottleneck adapters.

    Args:
        placement: where they sit, as above.
        bottleneck: size in the middle.
        activation: ``relu``, ``gelu`` or ``silu``.
        scale: ``s`` above; He et al. use 4 beside the feed-forward.
        dropout: of what goes into ``down``.
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
        self.require(self.bottleneck >= 1, "bottleneck", "at least 1")
        self.require(self.activation in ACTIVATIONS, "activation", "relu, gelu or silu")
        self.require(self.scale > 0, "scale", "above 0")
        self.require(0 <= self.dropout < 1, "dropout", "in 0..1, below 1")


class Bottleneck(nn.Module):
    """``s * up(phi(down(z)))`` in float32, for ``z`` and a result of shape ``(..., width)``.

    Args:
        width: size of the residual stream; trainable parameters grow as ``2 * width * bottleneck``.
        params: the method's.
    """

    def __init__(self, width: int, params: AdapterParams) -> None:
        super().__init__()
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
        """What is added to the stream, in its dtype."""
        inner = self.activation(self.down(self.dropout(z.float())))
        added: Tensor = self.scale * self.up(inner)
        return added.to(z.dtype)


class Wrapped(nn.Module):
    """A frozen layer inside a module of ours; whatever else is asked of it is the layer's."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = layer

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base_layer"), name)


class Serial(Wrapped):
    """A frozen layer with a bottleneck behind it."""

    def __init__(self, layer: nn.Module, adapter: Bottleneck) -> None:
        super().__init__(layer)
        self.adapter = adapter

    def forward(self, x: Tensor) -> Tensor:
        """Shape ``(..., in)`` to ``(..., width)``."""
        z: Tensor = self.base_layer(x)
        added: Tensor = self.adapter(z)
        return z + added


class Tap(Wrapped):
    """The first layer of a feed-forward, which leaves what it reads for :class:`Beside`."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__(layer)
        self.read: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        """The layer's own result."""
        self.read[:] = [x]
        y: Tensor = self.base_layer(x)
        return y


class Beside(Wrapped):
    """The last layer of a feed-forward, with a bottleneck that reads the feed-forward's input."""

    def __init__(self, layer: nn.Module, adapter: Bottleneck, tap: Tap) -> None:
        super().__init__(layer)
        self.adapter = adapter
        self._read = tap.read

    def forward(self, x: Tensor) -> Tensor:
        """Shape ``(..., in)`` to ``(..., width)``."""
        y: Tensor = self.base_layer(x)
        added: Tensor = self.adapter(self._read.pop())
        return y + added


def attach(view: nn.Module, params: AdapterParams, context: Context) -> Attached:
    """Wrap the layers at the placement's sites, and let the head train.

    Raises:
        MethodError: if a block has no such site, or is narrower than the bottleneck.
    """
    before = set(view.modules())
    for block in blocks(view, context.layers):
        _wrap(view, block, params)
    heads = train_head(view, context)
    active = [m for m in view.modules() if m not in before]
    active += [part for head in heads for part in head.modules()]
    return attached(view, "adapter", params, context, active=active)


def _wrap(view: nn.Module, block: Block, params: AdapterParams) -> None:
    if not block.feed_forward_out:
        raise MethodError(f"{block.name} has no feed-forward of linear layers to put an adapter at")
    device = next(view.parameters()).device
    if params.placement == "parallel":
        tap = Tap(view.get_submodule(block.feed_forward_in[0]))
        out = view.get_submodule(block.feed_forward_out[0])
        view.set_submodule(block.feed_forward_in[0], tap)
        view.set_submodule(block.feed_forward_out[0], Beside(out, _bottleneck(out, params).to(device), tap))
        return
    after_attention = block.linears.get("attention_output", ())
    if params.placement == "houlsby" and not after_attention:
        raise MethodError(f"{block.name} has no output projection of attention to put an adapter after")
    for name in (*(after_attention if params.placement == "houlsby" else ()), *block.feed_forward_out):
        layer = view.get_submodule(name)
        view.set_submodule(name, Serial(layer, _bottleneck(layer, params).to(device)))


def _bottleneck(layer: nn.Module, params: AdapterParams) -> Bottleneck:
    inner = innermost(layer)
    width: int = inner.out_features if isinstance(inner, nn.Linear) else inner.nf  # type: ignore[assignment]
    if params.bottleneck > width:
        raise MethodError(f"bottleneck is {params.bottleneck}; it must be at most {width}, the width of the model")
    return Bottleneck(width, params)


SPEC = MethodSpec(
    name="adapter",
    category=Category.ADDITIVE,
    reference="Houlsby et al. (2019), arXiv:1902.00751; also arXiv:2005.00247 and arXiv:2110.04366",
    params_type=AdapterParams,
    attach=attach,
)
