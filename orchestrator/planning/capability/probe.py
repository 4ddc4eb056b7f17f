"""Try methods on one architecture for one task type."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import methods
from methods.base.spec import Attached, Context, Hyperparameters, MethodError, MethodSpec, Quantization, TaskText
from orchestrator.backbone.shared import SharedBackbone
from orchestrator.backbone.skeleton import shallow_skeletons, skeleton, tiny_model
from orchestrator.common.errors import first_line
from orchestrator.planning.capability.attach import WeightsNeededError, attach
from orchestrator.planning.capability.dry_run import dry_run, reads_ahead
from orchestrator.planning.capability.dummy_text import dummy_text
from orchestrator.planning.capability.requirements import MAX_WRITTEN_BYTES, measure_requirements
from orchestrator.planning.capability.step_cost import passes
from orchestrator.tasks import TaskType

if TYPE_CHECKING:
    from transformers import PretrainedConfig

MAX_LENGTH = 128
TRAINING_PARAMETERS = frozenset(field.name for field in dataclasses.fields(Hyperparameters))
HALVINGS = 8
MIN_DEEP_LAYERS = 4
MAX_ATTACH_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Capability:
    """What one method can do on one architecture.

    Args:
        method: the method's name.
        available: whether it works.
        reason: why it does not work, one line.
        trainable: number of trained parameters in the configuration that was tried; ``None`` if that depends on the
            backbone's weights.
        percent: these as a percentage of the backbone's parameters.
        mergeable: whether the trained adapter can be merged into plain weights.
        category: category of the method.
        reference: publication of the method.
        passes: cost of a row in a training step, in forward passes through the bare backbone.
    """

    method: str
    available: bool
    reason: str = ""
    trainable: int | None = 0
    percent: float | None = 0.0
    mergeable: bool = False
    category: str = ""
    reference: str = ""
    passes: float = 2.0

    @classmethod
    def of(cls, spec: MethodSpec[Any], kind: TaskType) -> Capability:
        """Return what is known about a method without an architecture."""
        trains_task = kind.peft_task_type in spec.tasks
        return cls(
            method=spec.name,
            available=trains_task,
            reason="" if trains_task else f"cannot train {kind.name} tasks",
            mergeable=spec.supports_merge,
            category=spec.category.value,
            reference=spec.reference,
        )


@dataclass(frozen=True)
class _Size:
    """An attached method: trained parameters, cost, number of layers, and the seconds that attaching took."""

    count: int
    passes: float
    mergeable: bool
    layers: int
    seconds: float


class Probe:
    """Tries methods on an architecture: on the meta device, and as a dry run on a tiny model with random weights.

    Args:
        config: the architecture.
        kind: the task type.
        name: the backbone's name.
        labels: number of classes of a classification task; 0 for a language model.
        quantization: quantization of the backbone.
        text: the task's text; dummy text if left out.
        sources: names of the source tasks, from which a trial may learn before its own task.
        source_labels: number of classes of each source task.

    Raises:
        MethodError: if transformers has no usable model of this architecture for the task type.
    """

    def __init__(
        self,
        config: PretrainedConfig,
        kind: TaskType,
        *,
        name: str,
        labels: int,
        quantization: Quantization,
        text: TaskText | None = None,
        sources: tuple[str, ...] = ("source",),
        source_labels: tuple[int, ...] = (),
    ) -> None:
        self._config, self.kind = config, kind
        self._skeleton_args = (kind.auto_class, kind.name, name, labels, quantization)
        self._labels = labels
        self._sources = {"sources": sources, "source_labels": source_labels}
        self._text = text or dummy_text(config, labels, _dummy_length(config))
        self._refusals: dict[tuple[str, str, str], str] = {}
        self._requirements: dict[tuple[str, str, float], Mapping[str, float]] = {}
        if reason := kind.refusal(config):
            raise MethodError(reason)
        try:
            self._bare = self._with_text(skeleton(config, *self._skeleton_args), self._text)
        except ValueError as error:
            if "Unrecognized configuration class" in str(error):
                raise MethodError(f"{config.model_type} models have no {kind.auto_class} in transformers") from error
            raise MethodError(f"the checkpoint's config.json describes no model ({first_line(error)})") from error
        self.parameters = self._bare.parameters()
        if kind.predicts_next_token and self._tiny_model and reads_ahead(self._tiny_model, kind):
            raise MethodError(f"{config.model_type} models attend to later tokens, so they cannot be language models")

    @property
    def context(self) -> Context:
        """What methods may read of the task and the backbone."""
        return self._bare.context

    def capability(self, method: str, params: Mapping[str, Any]) -> Capability:
        """Return whether a method works in a configuration, and what it trains there.

        Args:
            method: the method's name.
            params: its configuration.
        """
        spec = methods.get(method)
        base = Capability.of(spec, self.kind)
        if not base.available:
            return base
        try:
            size = self._size(spec, params)
        except WeightsNeededError:
            size = None
        except MethodError as error:
            return replace(base, available=False, reason=first_line(error, "no reason given"))
        if reason := self._dry_run_refusal(spec, params):
            return replace(base, available=False, reason=reason)
        if size is None:
            return replace(base, trainable=None, percent=None)
        percent = 100 * size.count / self.parameters
        return replace(base, trainable=size.count, percent=percent, mergeable=size.mergeable, passes=size.passes)

    def refusal(self, method: str, params: Mapping[str, Any], thoroughly: bool = False) -> str:
        """Return why a method does not work in a configuration, one line; empty if it works.

        Args:
            method: the method's name.
            params: its configuration.
            thoroughly: whether to include a dry run on a tiny model, whose sizes differ from the architecture's.
        """
        spec = methods.get(method)
        try:
            spec.params_type.from_dict(params)
        except MethodError as error:
            return first_line(error, "no reason given")
        return self._attach_refusal(spec, params) or (self._dry_run_refusal(spec, params) if thoroughly else "")

    def requirements(
        self, method: str, params: Mapping[str, Any], write_limit: float = MAX_WRITTEN_BYTES
    ) -> Mapping[str, float]:
        """Return what a configuration requires; see :func:`~.requirements.measure_requirements`.

        Raises:
            MethodError: if that is unknown without the backbone's weights.
        """
        key = (method, shape_key(params), write_limit)
        if key not in self._requirements:
            self._requirements[key] = measure_requirements(
                methods.get(method), params, self._bare, write_limit=write_limit
            )
        return self._requirements[key]

    def _size(self, spec: MethodSpec[Any], params: Mapping[str, Any]) -> _Size:
        """Return what a method trains in all layers.

        A few methods compute with weights when they are attached, which takes up to a minute per layer on a large
        architecture. Their number of parameters is extrapolated linearly from skeletons with few layers.

        Raises:
            MethodError: if the method cannot be attached.
        """
        layers = layers_of(self._bare)
        if layers < MIN_DEEP_LAYERS or len(self._shallows) < 2:
            return _attached_size(spec, params, self._bare)
        try:
            few = _attached_size(spec, params, self._shallow)
        except WeightsNeededError:
            raise
        except MethodError:  # it may need more layers than these
            return _attached_size(spec, params, self._bare)
        if few.seconds * layers / few.layers < MAX_ATTACH_SECONDS:
            return _attached_size(spec, params, self._bare)
        more = _attached_size(spec, params, self._shallows[1])
        each = (more.count - few.count) // (more.layers - few.layers)
        return replace(few, count=few.count + each * (layers - few.layers))

    def _attach_refusal(self, spec: MethodSpec[Any], params: Mapping[str, Any]) -> str:
        def compute() -> str:
            # few layers first, which is fast; a method that needs more layers is then tried on all
            return _failure(spec, params, self._shallow) and _failure(spec, params, self._bare)

        return self._cached(("attached", spec.name, shape_key(params)), compute)

    def _dry_run_refusal(self, spec: MethodSpec[Any], params: Mapping[str, Any]) -> str:
        def compute() -> str:
            try:
                self._dry_run(spec, params)
            except MethodError as error:
                return first_line(error, "no reason given")
            return ""

        return self._cached(("dry run", spec.name, shape_key(params)), compute)

    def _cached(self, key: tuple[str, str, str], compute: Callable[[], str]) -> str:
        if key not in self._refusals:
            self._refusals[key] = compute()
        return self._refusals[key]

    def _dry_run(self, spec: MethodSpec[Any], params: Mapping[str, Any]) -> None:
        """Run a configuration on the tiny model, with smaller sizes if they are too large for the tiny model alone.

        Raises:
            MethodError: if a step of the dry run fails.
        """
        if self._tiny_model is None:
            return
        attached = self._attach_to_tiny_model(spec, params, self._tiny_model)
        if attached is not None:
            dry_run(spec, attached, self._tiny_model, self.kind)

    def _attach_to_tiny_model(
        self, spec: MethodSpec[Any], params: Mapping[str, Any], backbone: SharedBackbone
    ) -> Attached | None:
        for halvings in range(HALVINGS):
            smaller = {name: _halved(name, value, halvings) for name, value in params.items()}
            try:
                return attach(spec, smaller, backbone)
            except MethodError:
                if self._tiny_skeleton is None or not _failure(spec, smaller, self._tiny_skeleton):
                    raise  # its sizes fit, so the failure has another reason
        return None

    @cached_property
    def _shallows(self) -> list[SharedBackbone]:
        """Two skeletons with the real widths and few layers; empty if the architecture has no more layers."""
        skeletons = itertools.islice(shallow_skeletons(self._config, *self._skeleton_args), 2)
        return [
            self._with_text(shallow, self._text) for shallow in skeletons if layers_of(shallow) < layers_of(self._bare)
        ]

    @property
    def _shallow(self) -> SharedBackbone:
        return self._shallows[0] if self._shallows else self._bare

    @cached_property
    def _tiny_model(self) -> SharedBackbone | None:
        model = tiny_model(self._config, *self._skeleton_args)
        return model and self._with_dummy_text(model)

    @cached_property
    def _tiny_skeleton(self) -> SharedBackbone | None:
        """The tiny model on the meta device: a configuration that cannot be attached here is too large for it."""
        if self._tiny_model is None:
            return None
        return self._with_dummy_text(skeleton(self._tiny_model.model.config, *self._skeleton_args))

    def _with_dummy_text(self, backbone: SharedBackbone) -> SharedBackbone:
        config = backbone.model.config
        return self._with_text(backbone, dummy_text(config, self._labels, _dummy_length(config)))

    def _with_text(self, backbone: SharedBackbone, text: TaskText) -> SharedBackbone:
        backbone.context = replace(backbone.context, text=text, **self._sources)  # type: ignore[arg-type]
        return backbone


def list_methods() -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the names of all methods, and the reason by name for each type of `peft` that is not one."""
    from methods.families.peft_type_names import refused, trainable_types

    refusals = {f"peft:{kind}": reason for kind, reason in refused().items()}
    names = list(methods.names())
    for name in (f"peft:{kind}" for kind in trainable_types()):
        try:
            names.append(methods.get(name).name)
        except MethodError as error:
            refusals[name] = first_line(error, "no reason given")
    return tuple(names), refusals


def _dummy_length(config: PretrainedConfig) -> int:
    """Return a maximum length of rows that leaves positions for virtual tokens."""
    positions = getattr(config, "max_position_embeddings", None) or 2 * MAX_LENGTH
    return max(1, min(MAX_LENGTH, positions // 2))


def _halved(name: str, value: Any, times: int) -> Any:
    if name in TRAINING_PARAMETERS or isinstance(value, bool) or not isinstance(value, int):
        return value
    return max(1, value >> times)


def _failure(spec: MethodSpec[Any], params: Mapping[str, Any], backbone: SharedBackbone) -> str:
    try:
        attach(spec, params, backbone)
    except WeightsNeededError:
        return ""  # the dry run on the tiny model decides
    except MethodError as error:
        return first_line(error, "no reason given")
    return ""


def layers_of(backbone: SharedBackbone) -> int:
    """Return the number of layers of an architecture."""
    count: int = backbone.model.config.get_text_config().num_hidden_layers
    return count


def _attached_size(spec: MethodSpec[Any], params: Mapping[str, Any], backbone: SharedBackbone) -> _Size:
    start = time.perf_counter()
    attached = attach(spec, params, backbone)
    count = sum(parameter.numel() for parameter in attached.trainable().values())
    cost, mergeable = passes(attached, backbone), attached.merge is not None
    return _Size(count, cost, mergeable, layers_of(backbone), time.perf_counter() - start)


def shape_key(params: Mapping[str, Any]) -> str:
    """Return a key of the parameters that decide how a method is attached: all but those of training."""
    return repr(sorted((name, value) for name, value in params.items() if name not in TRAINING_PARAMETERS))
