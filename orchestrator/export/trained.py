"""Where a trained adapter is: a trial's in its sweep's folder, or a registered model's in MLflow."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from methods.base.spec import MethodSpec
from methods.families.compose_names import methods_of
from orchestrator.common.errors import InputError, Problem
from orchestrator.common.storage import Storage
from orchestrator.common.trial_types import TrialKey, checkpoint_path
from orchestrator.config.plugins import method_with
from orchestrator.tracking.bundle import ADAPTER, CARRIED, TOKENIZER, BundleBackbone
from orchestrator.tracking.journal import Journal
from orchestrator.tracking.sweeps import local_folder

FORMS = "write SWEEP/TASK/METHOD/NUMBER of a trial, or NAME@champion or NAME/3 of a registered model"
Event = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trained adapter, and what must be known to use it.

    Args:
        reference: as it was asked for.
        name: what a folder of it may be called.
        origin: what it is, in words.
        method: that trained it.
        type: of its task.
        labels: in the order of the logits; none for a language model.
        backbone: that it was trained on.
        adapter: folder that the method saved.
        tokenizer: folder that the tokenizer saved.
        carried: file that may be the backbone.
        storage: where the backbone may be found.
        plugins: files of the methods from outside that it needs; none of them has been run.
    """

    reference: str
    name: str
    origin: str
    method: str
    type: str
    labels: tuple[str, ...]
    backbone: BundleBackbone
    adapter: Path
    tokenizer: Path
    carried: Path | None = None
    storage: Storage | None = None
    plugins: tuple[Path, ...] = ()

    def spec(self) -> MethodSpec[Any]:
        """Its method. Runs the code of its plugins.

        Raises:
            InputError: if there is no such method here.
        """
        return method_with(self.method, self.plugins, self.reference)

    @property
    def peft(self) -> bool:
        """Whether `peft` loads its folder, as it does those of its own methods."""
        return not self.plugins and self.spec().peft


def find(reference: str, place: Path, *, storage: str, tracking_uri: str) -> Trained:
    """Bring a trained adapter here.

    Args:
        reference: ``SWEEP/TASK/METHOD/NUMBER``, ``NAME@ALIAS`` or ``NAME/VERSION``.
        place: empty folder for what must be fetched.
        storage: where sweeps are, as in the configuration; a path or URI before ``SWEEP`` counts instead.
        tracking_uri: where models are.

    Raises:
        InputError: if there is no such trial or model, or the trial left nothing behind.
        SweepError: if it cannot be fetched.
    """
    if reference.count("/") < 3:
        return _model(reference, place, tracking_uri)
    sweep, task, method, number = reference.rsplit("/", 3)
    if not number.isdecimal():
        raise InputError(reference, [Problem("", f"is neither a trial nor a model; {FORMS}")])
    root, slash, sweep = sweep.rpartition("/")
    return _trial(
        reference, Storage.at(root if slash else storage), sweep, TrialKey(f"{task}/{method}", int(number)), place
    )


def _model(reference: str, place: Path, tracking_uri: str) -> Trained:
    from orchestrator.tracking.fetch import fetch_model

    if reference.count("/") > 1:
        raise InputError(reference, [Problem("", f"is neither a trial nor a model; {FORMS}")])
    found = fetch_model(reference, place, tracking_uri)
    bundle = found.bundle
    return Trained(
        reference=reference,
        name=f"{found.name}-{found.version}",
        origin=f"version {found.version} of model {found.name}, trial {bundle.trial} of sweep {bundle.sweep}",
        method=bundle.method,
        type=bundle.type,
        labels=bundle.labels,
        backbone=bundle.backbone,
        adapter=found.folder / ADAPTER,
        tokenizer=found.folder / TOKENIZER,
        carried=found.folder / CARRIED,
        plugins=found.plugins,
    )


def _trial(reference: str, storage: Storage, sweep: str, key: TrialKey, place: Path) -> Trained:
    events = _events(reference, storage, sweep)
    told = next((event for event in reversed(events) if event["event"] == "sweep"), None)
    own = [event for event in events if event.get("trial") == str(key)]
    if told is None or not own:
        raise _unknown_trial(reference, sweep, key, events)
    inside = storage.sub(sweep)
    checkpoint = _checkpoint(inside, key, own)
    if checkpoint is None:
        reason = next((event["reason"] for event in own if event.get("reason")), "it came to no result yet")
        raise InputError(reference, [Problem("", f"the trial left no adapter behind ({reason})")])
    inside.download(f"{checkpoint}/adapter", place / ADAPTER)
    inside.download("tokenizer", place / TOKENIZER)
    return Trained(
        reference=reference,
        name=re.sub(r"[^\w.-]+", "-", f"{sweep}-{key}"),
        origin=f"trial {key} of sweep {sweep}",
        method=key.method,
        type=told["config"]["tasks"][key.task]["type"],
        labels=tuple(told["tasks"][key.task].get("labels", ())),
        backbone=_backbone(told["backbone"], key.task),
        adapter=place / ADAPTER,
        tokenizer=place / TOKENIZER,
        storage=storage,
        plugins=tuple(_plugins(reference, key.method, told["config"].get("plugins", ()))),
    )


def _plugins(reference: str, method: str, files: Sequence[str]) -> Iterator[Path]:
    """Those of a sweep's plugins that a method needs."""
    for file in map(Path, files):
        if file.stem in methods_of(method):
            if not file.is_file():
                message = f"its method {file.stem} came from {file}, which is not there any more"
                raise InputError(reference, [Problem("", message)])
            yield file


def _events(reference: str, storage: Storage, sweep: str) -> list[dict[str, Any]]:
    journal = local_folder(storage, sweep) / "journal.jsonl"
    if journal.exists():
        return Journal.read(journal)
    known = sorted(file.parent.name for file in journal.parent.parent.glob("*/journal.jsonl"))
    where = f"there is no sweep {sweep} in {journal.parent.parent}"
    raise InputError(reference, [Problem("", f"{where}; {_nearest(sweep, known)}")])


def _unknown_trial(reference: str, sweep: str, key: TrialKey, events: Sequence[Event]) -> InputError:
    known = list(dict.fromkeys(event["trial"] for event in events if event["event"] == "trial"))
    return InputError(reference, [Problem("", f"sweep {sweep} has no trial {key}; {_nearest(str(key), known)}")])


def _nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, 3, cutoff=0.5) or known[-3:]
    return f"there is {', '.join(close)}" if close else "there is none at all"


def _checkpoint(inside: Storage, key: TrialKey, own: Sequence[Event]) -> str | None:
    """Where the trial's last state is: that of its final, or of its last rung."""
    steps = sorted({event["step"] for event in own if "step" in event}, reverse=True)
    paths = (f"{checkpoint_path(key, step)}{final}" for step in steps for final in ("-test", ""))
    return next((path for path in paths if inside.exists(f"{path}/adapter")), None)


def _backbone(told: Event, task: str) -> BundleBackbone:
    dtype = told.get("compute_dtype")
    return BundleBackbone(
        model=told["model"],
        revision=told.get("revision"),
        quantization=told["quantization"],
        double_quantization=told["double_quantization"],
        compute_dtype="bfloat16" if dtype == "bfloat16" else "float32",
        digest=told["digest"][task],
        checksum=told["checksum"][task],
    )
