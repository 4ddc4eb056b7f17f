"""Try methods on one architecture, for one type of task."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import methods
from methods.base.spec import Attached, Hyperparameters, MethodError, MethodSpec, Quantization, TaskText
from orchestrator.backbone.shared import SharedBackbone
from orchestrator.backbone.skeleton import shallow_skeletons, skeleton, tiny_model
from orchestrator.common.errors import first_line
from orchestrator.planning.capability.dry_run import NumbersNeededError, attach, dry_run, reads_ahead
from orchestrator.planning.capability.dummy_text import dummy_text
from orchestrator.planning.capability.requirements import MAX_WRITTEN_BYTES, measure_requirements
from orchestrator.planning.capability.step_cost import passes
from orchestrator.tasks import TaskType

if TYPE_CHECKING:
    from transformers import PretrainedConfig

MAX_LENGTH = 128
TRAINING = frozenset(field.name for field in dataclasses.fields(Hyperparameters))
HALVINGS = 8
DEEP = 4
SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Capability:
    """One method on one architecture.

    Args:
        method: its name.
        available: whether it works here.
        reason: why not, one line.
        trainable: parameters of the configuration that was tried; ``None`` where only real weights would tell.
        percent: of the backbone's.
        mergeable: whether the trained adapter can be folded into plain weights.
        category: its family.
        reference: its source.
        passes: what a row costs in a training step, in passes through the bare backbone.
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
    def of(cls, spec: MethodSpec[Any], task: str) -> Capability:
        """What is known of a method without an architecture."""
        able = task in spec.tasks
        return cls(
            method=spec.name,
            available=able,
            reason="" if able else f"cannot train {task} tasks",
            mergeable=spec.supports_merge,
            category=spec.category.value,
            reference=spec.reference,
        )


@dataclass(frozen=True)
class _Size:
    """What an attached method trains, what that costs, in how many layers, and the seconds that attaching took."""

    count: int
    passes: float
    mergeable: bool
    layers: int
    seconds: float


class Probe:
    """An architecture without its weights, and in miniature with random ones.

    Args:
        config: the architecture.
        kind: the type of task.
        name: of the backbone.
        labels: classes of a classification task; 0 for a language model.
        quantization: of the backbone.
        text: the task's words; made up where they are not known.
        sources: names of the tasks that a trial may learn from before its own.
        source_labels: how many classes each of those has.

    Raises:
        MethodError: if no model for this type of task can be made of the architecture.
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
        self.task = kind.name
        self._config, self._kind = config, kind
        self._made = (kind.auto_class, kind.name, name, labels, quantization)
        self._labels = labels
        self._sources = {"sources": sources, "source_labels": source_labels}
        self._text = text or dummy_text(config, labels, _usual_length(config))
        self._known: dict[tuple[str, str, str], str] = {}
        self._needs: dict[tuple[str, str, float], Mapping[str, float]] = {}
        try:
            self._bare = self._told(skeleton(config, *self._made), self._text)
        except ValueError as error:
            reason = f"{config.model_type} models have no {kind.auto_class} in transformers"
            raise MethodError(reason) from error
        self.parameters = self._bare.parameters()
        if self.task == "causal-lm" and self._tiny_model and reads_ahead(self._tiny_model):
            raise MethodError(f"{config.model_type} models read to the right as well and are no language models")

    def capability(self, method: str, params: Mapping[str, Any]) -> Capability:
        """Whether a method works in this configuration, and what it trains."""
        spec = methods.get(method)
        known = Capability.of(spec, self.task)
        if not known.available:
            return known
        try:
            size = self._size(spec, params)
        except NumbersNeededError:
            size = None
        except MethodError as error:
            return replace(known, available=False, reason=first_line(error, "no reason given"))
        if reason := self._rehearsed(spec, params):
            return replace(known, available=False, reason=reason)
        if size is None:
            return replace(known, trainable=None, percent=None)
        percent = 100 * size.count / self.parameters
        return replace(known, trainable=size.count, percent=percent, mergeable=size.mergeable, passes=size.passes)

    def refusal(self, method: str, params: Mapping[str, Any], thoroughly: bool = False) -> str:
        """Why a method does not work in this configuration, one line; empty where it does.

        Args:
            method: its name.
            params: its configuration.
            thoroughly: whether to try it in miniature too, where sizes are other ones.
        """
        spec = methods.get(method)
        try:
            spec.params_type.from_dict(params)
        except MethodError as error:
            return first_line(error, "no reason given")
        return self._unattachable(spec, params) or (self._rehearsed(spec, params) if thoroughly else "")

    def needs(self, method: str, params: Mapping[str, Any], written: float = MAX_WRITTEN_BYTES) -> Mapping[str, float]:
        """What a configuration needs, as :func:`orchestrator.planning.capability.requirements.measure_requirements` tells it.

        Raises:
            MethodError: if that cannot be told without the backbone's weights.
        """
        key = (method, _shape(params), written)
        if key not in self._needs:
            self._needs[key] = measure_requirements(methods.get(method), params, self._bare, written=written)
        return self._needs[key]

    def _size(self, spec: MethodSpec[Any], params: Mapping[str, Any]) -> _Size:
        """What trains in all layers.

        A few methods compute with weights when they are attached, a minute a layer where those are large. What these
        train in few layers is continued in a straight line.

        Raises:
            MethodError: if the method does not fit.
        """
        layers = layers_of(self._bare)
        if layers < DEEP or len(self._shallows) < 2:
            return _attached_size(spec, params, self._bare)
        try:
            few = _attached_size(spec, params, self._shallow)
        except NumbersNeededError:
            raise
        except MethodError:  # layers may be what it lacks
            return _attached_size(spec, params, self._bare)
        if few.seconds * layers / few.layers < SECONDS:
            return _attached_size(spec, params, self._bare)
        more = _attached_size(spec, params, self._shallows[1])
        each = (more.count - few.count) // (more.layers - few.layers)
        return replace(few, count=few.count + each * (layers - few.layers))

    def _unattachable(self, spec: MethodSpec[Any], params: Mapping[str, Any]) -> str:
        def find() -> str:
            # few layers first, which is quick; but layers may be what it lacks, and the real architecture has them
            return _failure(spec, params, self._shallow) and _failure(spec, params, self._bare)

        return self._once(("attached", spec.name, _shape(params)), find)

    def _rehearsed(self, spec: MethodSpec[Any], params: Mapping[str, Any]) -> str:
        def find() -> str:
            try:
                self._rehearse(spec, params)
            except MethodError as error:
                return first_line(error, "no reason given")
            return ""

        return self._once(("rehearsed", spec.name, _shape(params)), find)

    def _once(self, key: tuple[str, str, str], find: Callable[[], str]) -> str:
        if key not in self._known:
            self._known[key] = find()
        return self._known[key]

    def _rehearse(self, spec: MethodSpec[Any], params: Mapping[str, Any]) -> None:
        """Try it in miniature; a configuration that is too large for the miniature alone is made smaller.

        Raises:
            MethodError: if it does not work.
        """
        if self._tiny_model is None:
            return
        attached = self._in_miniature(spec, params, self._tiny_model)
        if attached is not None:
            dry_run(spec, attached, self._tiny_model, self._kind)

    def _in_miniature(
        self, spec: MethodSpec[Any], params: Mapping[str, Any], backbone: SharedBackbone
    ) -> Attached | None:
        for halvings in range(HALVINGS):
            smaller = {name: _halved(name, value, halvings) for name, value in params.items()}
            try:
                return attach(spec, smaller, backbone)
            except MethodError:
                if self._hollow is None or not _failure(spec, smaller, self._hollow):
                    raise  # the size is not the reason
        return None

    @cached_property
    def _shallows(self) -> list[SharedBackbone]:
        """Two skeletons with few layers, where the real one has more."""
        made = itertools.islice(shallow_skeletons(self._config, *self._made), 2)
        return [self._told(one, self._text) for one in made if layers_of(one) < layers_of(self._bare)]

    @property
    def _shallow(self) -> SharedBackbone:
        return self._shallows[0] if self._shallows else self._bare

    @cached_property
    def _tiny_model(self) -> SharedBackbone | None:
        found = tiny_model(self._config, *self._made)
        return found and self._told_anew(found)

    @cached_property
    def _hollow(self) -> SharedBackbone | None:
        """The miniature's skeleton: what does not attach there is too large for it, or works nowhere."""
        if self._tiny_model is None:
            return None
        return self._told_anew(skeleton(self._tiny_model.model.config, *self._made))

    def _told_anew(self, backbone: SharedBackbone) -> SharedBackbone:
        config = backbone.model.config
        return self._told(backbone, dummy_text(config, self._labels, _usual_length(config)))

    def _told(self, backbone: SharedBackbone, text: TaskText) -> SharedBackbone:
        backbone.context = replace(backbone.context, text=text, **self._sources)  # type: ignore[arg-type]
        return backbone


def list_methods() -> tuple[tuple[str, ...], dict[str, str]]:
    """Every method by name, and why each of the others that `peft` has is none."""
    from methods.families.peft_type_names import refused, trainable_types

    left_out = {f"peft:{kind}": reason for kind, reason in refused().items()}
    there = list(methods.names())
    for name in (f"peft:{kind}" for kind in trainable_types()):
        try:
            there.append(methods.get(name).name)
        except MethodError as error:
            left_out[name] = first_line(error, "no reason given")
    return tuple(there), left_out


def _usual_length(config: PretrainedConfig) -> int:
    """Room for rows that leaves some for virtual tokens."""
    positions = getattr(config, "max_position_embeddings", None) or 2 * MAX_LENGTH
    return max(1, min(MAX_LENGTH, positions // 2))


def _halved(name: str, value: Any, times: int) -> Any:
    if name in TRAINING or isinstance(value, bool) or not isinstance(value, int):
        return value
    return max(1, value >> times)


def _failure(spec: MethodSpec[Any], params: Mapping[str, Any], backbone: SharedBackbone) -> str:
    try:
        attach(spec, params, backbone)
    except NumbersNeededError:
        return ""  # the miniature will tell
    except MethodError as error:
        return first_line(error, "no reason given")
    return ""


def layers_of(backbone: SharedBackbone) -> int:
    """How many layers an architecture has."""
    count: int = backbone.model.config.get_text_config().num_hidden_layers
    return count


def _attached_size(spec: MethodSpec[Any], params: Mapping[str, Any], backbone: SharedBackbone) -> _Size:
    begin = time.perf_counter()
    attached = attach(spec, params, backbone)
    count = sum(parameter.numel() for parameter in attached.trainable().values())
    cost, mergeable = passes(attached, backbone), attached.merge is not None
    return _Size(count, cost, mergeable, layers_of(backbone), time.perf_counter() - begin)


def _shape(params: Mapping[str, Any]) -> str:
    """What of a configuration decides how a method is attached."""
    return repr(sorted((name, value) for name, value in params.items() if name not in TRAINING))
