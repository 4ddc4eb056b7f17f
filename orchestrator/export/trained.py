"""Find and download a trained adapter: of a trial in its sweep's folder, or of a registered model in MLflow."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from methods.base.spec import MethodSpec
from methods.families.compose_names import methods_of
from orchestrator.common.errors import InputError, Problem
from orchestrator.common.storage import Storage
from orchestrator.common.trial_types import TrialKey, checkpoint_path
from orchestrator.config.plugins import method_with
from orchestrator.journal.events import Event, Journal
from orchestrator.journal.folders import find_sweep, local_folder
from orchestrator.tasks import TASK_TYPES
from orchestrator.tracking.bundle import ADAPTER, CARRIED, TOKENIZER, BundleBackbone, PeftAgreement

FORMS = "write SWEEP/TASK/METHOD/NUMBER of a trial, or NAME@champion or NAME/3 of a registered model"


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trained adapter, with everything that is needed to load it.

    Args:
        reference: reference of the trial or registered model.
        name: default name of its folder.
        origin: sweep and trial, or model and version, as text.
        method: method that trained it.
        type: type of its task.
        labels: labels in the order of the logits; none for a language model.
        columns: names of the columns that it reads, by the columns of a split table.
        constants: numbers of its task that its type needs.
        backbone: backbone that it was trained on.
        adapter: folder that the method saved.
        tokenizer: folder that the tokenizer saved.
        carried: path of the backbone's file in the bundle; it need not exist.
        storage: storage that may hold the backbone.
        plugins: files of the plugin methods that it needs; none of them has been run.
        peft_agreement: how far it predicts over the unquantized backbone what was recorded; ``None`` if not measured.
    """

    reference: str
    name: str
    origin: str
    method: str
    type: str
    labels: tuple[str, ...]
    columns: Mapping[str, str]
    backbone: BundleBackbone
    adapter: Path
    tokenizer: Path
    constants: Mapping[str, float] = field(default_factory=dict)
    carried: Path | None = None
    storage: Storage | None = None
    plugins: tuple[Path, ...] = ()
    peft_agreement: PeftAgreement | None = None

    def spec(self) -> MethodSpec[Any]:
        """Return its method. Runs the code of its plugins.

        Raises:
            InputError: if the method is unknown.
        """
        return method_with(self.method, self.plugins, self.reference)

    @property
    def peft(self) -> bool:
        """Whether `peft` loads its folder."""
        return not self.plugins and self.spec().peft


def find(reference: str, folder: Path, *, storage: str, tracking_uri: str) -> Trained:
    """Download a trained adapter.

    Args:
        reference: ``SWEEP/TASK/METHOD/NUMBER``, ``NAME@ALIAS`` or ``NAME/VERSION``.
        folder: empty folder for the download.
        storage: storage of the sweeps; a path or URI before ``SWEEP`` takes its place.
        tracking_uri: MLflow's tracking URI.

    Raises:
        InputError: if there is no such trial or model, or the trial has no checkpoint.
        SweepError: if it cannot be downloaded.
    """
    if reference.count("/") < 3:
        return _model(reference, folder, tracking_uri)
    sweep, task, method, number = reference.rsplit("/", 3)
    if not number.isdecimal():
        raise InputError(reference, [Problem("", f"is neither a trial nor a model; {FORMS}")])
    root, slash, sweep = sweep.rpartition("/")
    return _trial(
        reference, Storage.at(root if slash else storage), sweep, TrialKey(f"{task}/{method}", int(number)), folder
    )


def _model(reference: str, folder: Path, tracking_uri: str) -> Trained:
    from orchestrator.tracking.fetch import fetch_model

    if reference.count("/") > 1:
        raise InputError(reference, [Problem("", f"is neither a trial nor a model; {FORMS}")])
    model = fetch_model(reference, folder, tracking_uri)
    bundle = model.bundle
    return Trained(
        reference=reference,
        name=f"{model.name}-{model.version}",
        origin=f"version {model.version} of model {model.name}, trial {bundle.trial} of sweep {bundle.sweep}",
        method=bundle.method,
        type=bundle.type,
        labels=bundle.labels,
        columns=bundle.columns,
        constants=bundle.constants,
        backbone=bundle.backbone,
        adapter=model.folder / ADAPTER,
        tokenizer=model.folder / TOKENIZER,
        carried=model.folder / CARRIED,
        plugins=model.plugins,
        peft_agreement=bundle.peft_agreement,
    )


def _trial(reference: str, storage: Storage, sweep: str, key: TrialKey, folder: Path) -> Trained:
    events = _events(reference, storage, sweep)
    manifest = next((event for event in reversed(events) if event["event"] == "sweep"), None)
    of_trial = [event for event in events if event.get("trial") == str(key)]
    if manifest is None or not of_trial:
        raise _unknown_trial(reference, sweep, key, events)
    sweep_storage = storage.sub(sweep)
    checkpoint = _checkpoint(sweep_storage, key, of_trial)
    if checkpoint is None:
        reason = next((event["reason"] for event in of_trial if event.get("reason")), "it has no result yet")
        raise InputError(reference, [Problem("", f"the trial has no adapter ({reason})")])
    sweep_storage.download(f"{checkpoint}/adapter", folder / ADAPTER)
    sweep_storage.download("tokenizer", folder / TOKENIZER)
    type_ = manifest["config"]["tasks"][key.task]["type"]
    main_input = next(iter(TASK_TYPES[type_].input_columns))
    return Trained(
        reference=reference,
        name=re.sub(r"[^\w.-]+", "-", f"{sweep}-{key}"),
        origin=f"trial {key} of sweep {sweep}",
        method=key.method,
        type=type_,
        labels=tuple(manifest["tasks"][key.task].get("labels", ())),
        columns=manifest["tasks"][key.task].get("columns", {main_input: main_input}),
        constants=manifest["tasks"][key.task].get("constants", {}),
        backbone=_backbone(manifest["backbone"], key.task),
        adapter=folder / ADAPTER,
        tokenizer=folder / TOKENIZER,
        storage=storage,
        plugins=tuple(_plugins(reference, key.method, manifest["config"].get("plugins", ()))),
    )


def _plugins(reference: str, method: str, files: Sequence[str]) -> Iterator[Path]:
    """Return the plugins of a sweep that a method needs."""
    for file in map(Path, files):
        if file.stem in methods_of(method):
            if not file.is_file():
                message = f"its method {file.stem} came from {file}, which does not exist any more"
                raise InputError(reference, [Problem("", message)])
            yield file


def _events(reference: str, storage: Storage, sweep: str) -> list[dict[str, Any]]:
    folder = local_folder(storage, sweep) if storage.is_local else find_sweep(sweep, storage.root)
    journal = folder / "journal.jsonl"
    if journal.exists():
        return Journal.read(journal)
    sweeps = sorted(file.parent.name for file in journal.parent.parent.glob("*/journal.jsonl"))
    where = f"there is no sweep {sweep} in {journal.parent.parent}"
    raise InputError(reference, [Problem("", f"{where}; {_nearest(sweep, sweeps)}")])


def _unknown_trial(reference: str, sweep: str, key: TrialKey, events: Sequence[Event]) -> InputError:
    trials = list(dict.fromkeys(event["trial"] for event in events if event["event"] == "trial"))
    return InputError(reference, [Problem("", f"sweep {sweep} has no trial {key}; {_nearest(str(key), trials)}")])


def _nearest(name: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, names, 3, cutoff=0.5) or names[-3:]
    return f"there is {', '.join(close)}" if close else "there is none"


def _checkpoint(sweep_storage: Storage, key: TrialKey, events: Sequence[Event]) -> str | None:
    """Return the folder of a trial's last checkpoint: that of the final, or of its last rung."""
    steps = sorted({event["step"] for event in events if "step" in event}, reverse=True)
    paths = (f"{checkpoint_path(key, step)}{final}" for step in steps for final in ("-test", ""))
    return next((path for path in paths if sweep_storage.exists(f"{path}/adapter")), None)


def _backbone(recorded: Event, task: str) -> BundleBackbone:
    dtype = recorded.get("compute_dtype")
    return BundleBackbone(
        model=recorded["model"],
        revision=recorded.get("revision"),
        quantization=recorded["quantization"],
        double_quantization=recorded["double_quantization"],
        compute_dtype="bfloat16" if dtype == "bfloat16" else "float32",
        digest=recorded["digest"][task],
        checksum=recorded["checksum"][task],
    )
