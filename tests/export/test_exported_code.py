"""Every line of an exported README runs as it is written, for each kind of reference to a backbone."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers
from gguf import GGUFWriter, TensorNameMap, get_tensor_name_map
from gguf.constants import MODEL_ARCH

from orchestrator.export.merged import Merged
from orchestrator.export.readme import adapter_readme, merged_readme
from orchestrator.export.trained import find
from orchestrator.journal.events import Journal
from orchestrator.tracking.bundle import PeftAgreement

from ..hub_cache import MODEL, download, offline
from ..hub_server import COMMIT, hub_server
from .small_sweep_folder import LABELS, SWEEP, Leave, Left

pytestmark = pytest.mark.filterwarnings(
    # peft 0.21 still asks transformers 5 by its old name when it attaches
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",
)
Name = Callable[[Left], str]


def blocks(readme: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", readme.read_text(encoding="utf-8"), re.DOTALL)


def rename(trained: Left, model: str, revision: str | None = None) -> None:
    """Let the sweep have called its backbone so."""
    file = trained.storage / SWEEP / "journal.jsonl"
    events = Journal.read(file)
    events[0]["backbone"] |= {"model": model, "revision": revision}
    file.write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")


def in_a_folder(trained: Left) -> str:
    return str(trained.checkpoint)


def in_the_hub(trained: Left) -> str:
    download(trained.checkpoint, trained.storage.parent / "hf")
    return MODEL


def in_a_package(trained: Left) -> str:
    package = trained.storage.parent / "site" / "tiny_backbone"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    shutil.copytree(trained.checkpoint, package / "model")
    return "package:tiny_backbone/model"


def as_gguf(trained: Left) -> str:
    return as_gguf_of(trained.checkpoint, trained.storage.parent / "files")


def as_gguf_of(checkpoint: Path, folder: Path) -> str:
    """The weights of a checkpoint as a GGUF file, written as transformers reads them."""
    file = folder / "tiny.gguf"
    folder.mkdir()
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint)
    config, writer = model.config, GGUFWriter(file, "llama")
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    names: TensorNameMap = get_tensor_name_map(MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        stem = names.get_name(name.removesuffix(".weight"))
        writer.add_tensor(f"{stem}.weight", tensor.numpy().astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return str(file)


KINDS: dict[str, tuple[Name, str, str]] = {
    "folder": (in_a_folder, "bert", "classification"),
    "package": (in_a_package, "bert", "classification"),
    "gguf": (as_gguf, "llama", "causal-lm"),
    "hub": (in_the_hub, "bert", "classification"),
}


@pytest.fixture(params=[kind for kind in KINDS if kind != "hub"])
def exported(
    request: pytest.FixtureRequest, leave: Leave, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Left]:
    """A sweep whose backbone has a reference of that kind, with its adapter exported to ``adapter``."""
    name, kind, task = KINDS[request.param]
    trained = leave(kind, task, "lora")
    rename(trained, name(trained), COMMIT if request.param == "hub" else None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "site")
    trained.export(Path("adapter"))
    yield trained
    sys.modules.pop("tiny_backbone", None)


def test_exported_readme_code_runs_for_each_reference(exported: Left) -> None:
    own, plain = blocks(Path("adapter/README.md"))
    results: list[dict[str, Any]] = [{}, {}]
    exec(own, results[0])
    exec(plain, results[1])
    tokens = {name: results[0]["tokens"][name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        logits = results[1]["model"].eval()(**tokens).logits
    assert 0 < (logits - results[0]["logits"]).abs().max() < 3, "what NF4 rounds is all that differs"


def test_exported_peft_config_names_what_loaders_know(exported: Left) -> None:
    config = json.loads(Path("adapter/adapter_config.json").read_text())
    place = Path(config["base_model_name_or_path"])
    if any(place.glob("*.gguf")):
        assert [file.name for file in place.iterdir()] == ["tiny.gguf"]
        return
    model = peft.AutoPeftModelForSequenceClassification.from_pretrained("adapter", num_labels=len(LABELS))
    assert model.config.num_labels == len(LABELS)


def test_exported_files_have_the_modes_of_new_ones(leave: Leave, tmp_path: Path) -> None:
    trained = leave("bert", "classification", "lora")
    trained.export(tmp_path / "adapter")
    trained.export(tmp_path / "plain", merged=True)
    mask = os.umask(0)
    os.umask(mask)
    for folder in ("adapter", "plain"):
        files = [file for file in (tmp_path / folder).rglob("*") if file.is_file()]
        assert any(file.suffix == ".safetensors" for file in files)
        assert {file.stat().st_mode & 0o777 for file in files} == {0o666 & ~mask}


def test_exported_readme_says_what_was_quantized_and_what_not(leave: Leave, tmp_path: Path) -> None:
    trained = leave("bert", "classification", "lora")
    trained.export(tmp_path / "adapter")
    quantized = (tmp_path / "adapter" / "README.md").read_text()
    assert "(nf4): trial" in quantized
    assert (
        "in nf4, not over that, and how far the predictions of this combination differ was not measured." in quantized
    )
    found = find(f"{SWEEP}/{trained.trial}", tmp_path / "found", storage=str(trained.storage), tracking_uri="")
    plain = replace(found, backbone=found.backbone.model_copy(update={"quantization": "none"}))
    readme = adapter_readme(plain, "adapter")
    assert "(not quantized): trial" in readme
    assert "The backbone was not quantized in training either." in readme
    assert "quantized one" not in readme
    assert "is quantized at" not in readme
    merged = Merged(auto_class="AutoModel", dtype="float32", largest_difference=0.0, rows=8)
    assert "over unquantized weights; this checkpoint holds those weights, in float32." in merged_readme(
        plain, "m", merged
    )
    assert "weights in nf4; this checkpoint holds those weights, dequantized, in" in merged_readme(found, "m", merged)
    measured = PeftAgreement(rows=200, differing=8, largest_difference=0.2641, numbers="probability")
    assert "8 of 200 test rows get another answer" in adapter_readme(replace(found, peft_agreement=measured), "adapter")


def test_export_names_no_folder_of_a_missing_package(leave: Leave, tmp_path: Path) -> None:
    trained = leave("bert", "classification", "lora")
    rename(trained, "package:not_installed_here/model")
    trained.export(tmp_path / "adapter")
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"] is None


@contextmanager
def hub(trained: Left) -> Iterator[dict[str, str]]:
    """The environment of a machine that gets the backbone from a hub."""
    with hub_server(trained.checkpoint) as server:
        cache = {"HF_HOME": str(trained.storage.parent / "hf"), "HF_HUB_DISABLE_XET": "1"}
        yield {"HF_ENDPOINT": server.url, **cache}


@pytest.mark.slow
def test_exported_readme_code_runs_in_a_fresh_process_with_a_hub(leave: Leave, tmp_path: Path) -> None:
    trained = leave("bert", "classification", "lora")
    rename(trained, MODEL, COMMIT)
    trained.export(tmp_path / "adapter")
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["revision"] == COMMIT
    with hub(trained) as environment:
        for code in blocks(tmp_path / "adapter" / "README.md"):
            run(code, tmp_path, environment)


# huggingface_hub reads its environment when it is imported, so that only a fresh process has a cache of its own.
in_fresh_processes = pytest.mark.parametrize("exported", KINDS, indirect=True)


@pytest.mark.exhaustive
@in_fresh_processes
def test_merged_readme_code_runs_in_a_fresh_process(exported: Left, tmp_path: Path) -> None:
    exported.export(Path("plain"), merged=True)
    (code,) = blocks(Path("plain/README.md"))
    run(code, tmp_path, offline(tmp_path / "hf"))


@pytest.mark.slow
@in_fresh_processes
def test_exported_readme_code_runs_in_a_fresh_process(exported: Left, tmp_path: Path) -> None:
    for code in blocks(Path("adapter/README.md")):
        run(code, tmp_path, offline(tmp_path / "hf"))


def run(code: str, folder: Path, environment: dict[str, str]) -> None:
    search = os.pathsep.join([str(folder / "site"), os.environ.get("PYTHONPATH", "")])
    everything = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": search, **environment}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=everything, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
