"""Every line of a registered model's card runs as it is written, in a fresh process, for each kind of backbone."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.tracking.bundle import BUNDLE, CARD
from orchestrator.tracking.connection import open_client
from orchestrator.tracking.modelcard import model_card
from orchestrator.tracking.registry import register

from ..export.test_exported_code import as_gguf_of
from ..hub_cache import offline
from .conftest import MakeBundle
from .small import Made

pytestmark = pytest.mark.exhaustive
Reference = Callable[[Made, Path], str]


def as_it_is(made: Made, place: Path) -> str:
    return made.bundle.backbone.model


def in_a_package(made: Made, place: Path) -> str:
    package = place / "site" / "tiny_backbone"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    shutil.copytree(made.checkpoint, package / "model")
    return "package:tiny_backbone/model"


def as_gguf(made: Made, place: Path) -> str:
    return as_gguf_of(made.checkpoint, place / "files")


# A bundle carries a backbone that cannot be had by its name elsewhere: of a folder or a file, and not of a package or
# the hub.
KINDS: dict[str, tuple[Reference, str, bool]] = {
    "folder": (as_it_is, "encoder", True),
    "hub": (as_it_is, "encoder", False),
    "package": (in_a_package, "encoder", False),
    "gguf": (as_gguf, "decoder", True),
}


@pytest.mark.parametrize("kind", KINDS)
def test_card_code_runs_in_fresh_processes(kind: str, make_bundle: MakeBundle, uri: str, tmp_path: Path) -> None:
    refer, architecture, carried = KINDS[kind]
    made = make_bundle(architecture, carry=carried, hub=tmp_path / "hf" if kind == "hub" else None)
    backbone = made.bundle.backbone.model_copy(update={"model": refer(made, tmp_path)})
    bundle = made.bundle.model_copy(update={"backbone": backbone})
    (made.folder / BUNDLE).write_text(bundle.model_dump_json(), encoding="utf-8")
    (made.folder / CARD).write_text(model_card(bundle, peft=True), encoding="utf-8")
    client = open_client(uri)
    run_id = client.create_run(client.create_experiment("mail", str(tmp_path / "mlruns"))).info.run_id
    register(made.folder, run_id=run_id, tracking_uri=uri)
    card = client.get_model_version("mail", "1").description or ""
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in made.inputs), encoding="utf-8")

    answers, _ = (run([sys.executable, "-c", code], tmp_path, uri) for code in blocks(card, "python"))
    assert next(iter(bundle.task_type.answer_columns(bundle.labels))) in answers
    (shell,) = blocks(card, "sh")
    first, second = shell.splitlines()
    predicted = run(["bash", "-c", first], tmp_path, uri).splitlines()
    assert len([json.loads(line) for line in predicted]) == len(made.inputs)
    assert f"{len(made.inputs)}" in run(["bash", "-c", second], tmp_path, uri)


def blocks(card: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", card, re.DOTALL)


def run(command: list[str], folder: Path, uri: str) -> str:
    """What a command prints in a folder, with the tracking URI that the card asks for."""
    search = os.pathsep.join([str(folder / "site"), os.environ.get("PYTHONPATH", "")])
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": search, "PATH": path}
    environment |= {"MLFLOW_TRACKING_URI": uri, "PEFT_SWEEP_CACHE": str(folder / "cache"), **offline(folder / "hf")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
