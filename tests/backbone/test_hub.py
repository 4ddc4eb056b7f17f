"""What is downloaded from the hub where: descriptions to plan, weights to prepare."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.backbone.hub import Hub
from orchestrator.backbone.publish import publish_backbone
from orchestrator.backbone.source import Source, resolve
from orchestrator.common.errors import InputError
from orchestrator.common.storage import Storage
from orchestrator.config import BackboneConfig
from tests.hub_server import COMMIT, hub_server

CONFIG = BackboneConfig(model="team/model")
AUTO_CLASS = "AutoModelForSequenceClassification"


@pytest.fixture
def repository(sources: Callable[..., Source], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint in two shards, with all of its weights a second time as Mistral's repositories have them."""
    import transformers

    for name in ("HF_ENDPOINT", "HF_HOME", "HF_HUB_CACHE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PEFT_SWEEP_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "repository"
    whole = sources("bert").path
    transformers.AutoModel.from_pretrained(whole).save_pretrained(folder, max_shard_size="200KB")
    shutil.copy(whole / "model.safetensors", folder / "consolidated.safetensors")
    (folder / "tokenizer_config.json").write_text("{}")
    return folder


def _shards(repository: Path) -> set[str]:
    index = json.loads((repository / "model.safetensors.index.json").read_text())
    return set(index["weight_map"].values())


def test_hub_plan_downloads_no_weights(repository: Path, tmp_path: Path) -> None:
    with hub_server(repository) as server:
        source = resolve(CONFIG, tmp_path, Hub(server.url, str(tmp_path / "hub")))
        assert source.config().model_type == "bert"
        assert (source.revision, source.portable) == (COMMIT, True)
        expected = {"config.json", "model.safetensors.index.json", "tokenizer_config.json"}
        assert set(server.downloads) == expected


def test_hub_weights_are_those_of_the_index_once(repository: Path, tmp_path: Path) -> None:
    storage, options = Storage(str(tmp_path / "storage")), (AUTO_CLASS, "classification", 3, False)
    with hub_server(repository) as server:
        hub = Hub(server.url, str(tmp_path / "hub"))
        published = publish_backbone(CONFIG, tmp_path, *options, storage, hub)
        weights = [name for name in server.downloads if name.endswith(".safetensors")]
        assert len(_shards(repository)) > 1
        assert sorted(weights) == sorted(_shards(repository))
        shutil.rmtree(tmp_path / "hub")
        again = publish_backbone(CONFIG, tmp_path, *options, storage, hub)
        assert [name for name in server.downloads if name.endswith(".safetensors")] == weights, "it is in the storage"
    assert (again.checksum, again.quantized.fresh) == (published.checksum, False)


def test_hub_weights_in_one_file_are_downloaded(repository: Path, tmp_path: Path) -> None:
    for name in _shards(repository):
        (repository / name).unlink()
    (repository / "model.safetensors.index.json").unlink()
    shutil.copy(repository / "consolidated.safetensors", repository / "model.safetensors")
    with hub_server(repository) as server:
        source = resolve(CONFIG, tmp_path, Hub(server.url, str(tmp_path / "hub")))
        assert "model.safetensors" not in server.downloads
        source.download_weights()
        assert [name for name in server.downloads if "safetensors" in name] == ["model.safetensors"]


def test_hub_model_without_safetensors_is_refused_by_the_plan(repository: Path, tmp_path: Path) -> None:
    for file in repository.glob("*.safetensors*"):
        file.unlink()
    (repository / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with hub_server(repository) as server, pytest.raises(InputError, match="convert the checkpoint"):
        resolve(CONFIG, tmp_path, Hub(server.url, str(tmp_path / "hub")))


def test_hub_token_opens_a_gated_model(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    with hub_server(repository, token="hf_secret") as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        source = resolve(CONFIG, tmp_path)
        source.download_weights()
        with pytest.raises(InputError, match="the hub gave no checkpoint"):
            resolve(CONFIG, tmp_path, Hub(server.url, str(tmp_path / "other"), token="hf_other"))
    assert source.path.is_relative_to(tmp_path / "home")
    assert source.hub is not None
    assert "hf_secret" not in f"{source!r} {source.hub!s} {vars(source)}"
