"""Check that a plugin keeps the contract of a method, on tiny models with random weights, in under a second."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import torch
from torch import nn

from methods import load_adapter
from methods.base.spec import Attached, Hyperparameters, MethodError, MethodSpec, PeftTaskType
from methods.plugins.loader import load
from methods.plugins.tiny_model import TinyModel, tiny_models


def check_plugin(name: str) -> None:
    """Attach, train, save and load a registered plugin, as the contract tests do with a built-in method.

    Raises:
        MethodError: if it breaks the contract; the message is one line about the first violation.
    """
    with _as_one_line("cannot be imported"):
        module = load(name)
    spec, params = _declared(name, module.SPEC, module.SPACE)
    works, refusals = False, []
    for tiny in tiny_models(spec.tasks):
        try:
            _try_on(tiny, spec, params)
            works = True
        except _RefusalError as error:
            refusals.append(str(error))
    if refusals and not works:
        raise MethodError(refusals[0])


class _RefusalError(Exception):
    """The method refuses to be attached to a model."""


def _declared(name: str, spec: Any, space: Any) -> tuple[MethodSpec[Any], Hyperparameters]:
    """Check ``SPEC`` and ``SPACE``; return ``SPEC`` and the default parameters."""
    _require(isinstance(spec, MethodSpec), f"SPEC is {_kind(spec)}; it must be a MethodSpec")
    _require(spec.name == name, f"SPEC.name is {spec.name!r}; it must be the file's own, {name!r}")
    types = get_args(PeftTaskType)
    for unknown in sorted(set(spec.tasks).difference(types)):
        raise MethodError(f"SPEC.tasks names {unknown!r}; name task types of peft: {', '.join(types)}")
    kind = spec.params_type
    is_params_class = isinstance(kind, type) and issubclass(kind, Hyperparameters)
    frozen = is_params_class and kind.__dataclass_params__.frozen
    _require(frozen, "SPEC.params_type must be a frozen dataclass that derives from Hyperparameters")
    mappings = [getattr(space, key, None) for key in ("distributions", "default")]
    _require(all(isinstance(m, Mapping) for m in mappings), f"SPACE is {_kind(space)}; it must be a SearchSpace")
    fields = {field.name for field in dataclasses.fields(kind)}
    for unknown in sorted(set(space.distributions) - fields):
        raise MethodError(f"SPACE searches {unknown!r}, which {kind.__name__} does not have")
    for missing in sorted(set(space.distributions) ^ set(space.default)):
        raise MethodError(f"SPACE names {missing!r} in one of distributions and default; it must be in both")
    with _as_one_line("SPACE.default makes no parameters"):
        params: Hyperparameters = kind.from_dict(dict(space.default))
        again = kind.from_dict(json.loads(json.dumps(params.to_dict())))
    _require(again == params, f"{kind.__name__} does not survive JSON: to_dict and from_dict must be inverses")
    return spec, params


def _try_on(tiny: TinyModel, spec: MethodSpec[Any], params: Hyperparameters) -> None:
    view = tiny.view()
    before = {name: tensor.clone() for name, tensor in tiny.shared().items()}
    bare = tiny.logits(view)
    attached = _attach(tiny, spec, params, view)
    attached.train(False)
    with _as_one_line("fails when it is called like the bare model"):
        fresh = tiny.logits(attached.module)
    if spec.starts_as_identity:
        same = fresh.shape == bare.shape and torch.allclose(fresh, bare, atol=1e-5, rtol=1e-5)
        _require(same, "SPEC declares starts_as_identity, and a fresh attachment changes the output")
    _require((attached.merge is not None) == spec.supports_merge, "SPEC.supports_merge and Attached.merge disagree")
    if spec.trains:
        _train(tiny, attached)
    written = [name for name, tensor in tiny.shared().items() if not torch.equal(tensor, before[name])]
    _require(not written, f"it writes to the shared backbone: {written[:1]} changed")
    _save_and_load(tiny, attached)


def _attach(tiny: TinyModel, spec: MethodSpec[Any], params: Hyperparameters, view: nn.Module) -> Attached:
    try:
        with torch.random.fork_rng(devices=[]):
            attached = spec.attach(view, params, tiny.context)
    except MethodError as error:
        raise _RefusalError(str(error)) from error
    except Exception as error:
        raise MethodError(f"attach fails on a tiny {type(view).__name__}: {_first_line(error)}") from error
    _require(isinstance(attached, Attached), f"attach returns {_kind(attached)}; it must return an Attached")
    declared = [id(p) for group in attached.groups for p in group.parameters]
    training = {id(p): name for name, p in attached.trainable().items()}
    twice = len(declared) != len(set(declared))
    _require(not twice, "a parameter is in Attached.groups twice")
    undeclared = [name for key, name in training.items() if key not in set(declared)]
    _require(not undeclared, f"{undeclared[:1]} requires a gradient and is in no group of Attached.groups")
    _require(set(declared) <= set(training), "a parameter in Attached.groups requires no gradient or is in no module")
    _require(bool(declared) == spec.trains, "Attached.groups is empty; declare trains=False if nothing trains")
    wide = [name for name, p in attached.trainable().items() if p.dtype != torch.float32]
    _require(not wide, f"{wide[:1]} is not float32, in which everything trains")
    return attached


def _train(tiny: TinyModel, attached: Attached) -> None:
    """Do one optimizer step that is large enough to change the output visibly."""
    attached.train(True)
    with _as_one_line("fails in a training step"):
        loss = tiny.loss(attached.module)
        _require(loss.requires_grad, "the loss depends on no parameter that trains")
        loss.backward()
    silent = [name for name, p in attached.trainable().items() if p.grad is None]
    _require(not silent, f"{silent[:1]} trains and gets no gradient")
    torch.optim.SGD([p for group in attached.groups for p in group.parameters], lr=0.1).step()
    with _as_one_line("on_step fails"):
        if attached.on_step is not None:
            attached.on_step(1, 2)
    attached.train(False)


def _save_and_load(tiny: TinyModel, attached: Attached) -> None:
    with tempfile.TemporaryDirectory() as place, _as_one_line("cannot be saved and loaded again"):
        attached.save(Path(place))
        with torch.random.fork_rng(devices=[]):
            # Random numbers drawn while attaching must not change the loaded adapter.
            torch.default_generator.manual_seed(1)
            back = load_adapter(tiny.view(), Path(place), tiny.context)
    back.train(False)
    same = torch.equal(tiny.logits(back.module), tiny.logits(attached.module))
    _require(same, "a loaded adapter gives other results than the saved one")


@contextmanager
def _as_one_line(problem: str) -> Iterator[None]:
    """Turn any exception into a ``MethodError`` of one line."""
    try:
        yield
    except Exception as error:
        raise MethodError(f"{problem}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    first = (str(error).strip() or "no message").splitlines()[0]
    return first if isinstance(error, MethodError) else f"{type(error).__name__}: {first}"


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise MethodError(message)


def _kind(value: Any) -> str:
    return f"a {type(value).__name__}"
