"""Quantized once, fetched once per node, mapped by many."""

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.backbone import store
from orchestrator.backbone.source import Source, resolve
from orchestrator.backbone.store import backbone_path, fetch, publish
from orchestrator.common.errors import InputError
from orchestrator.common.storage import Storage
from orchestrator.config import BackboneConfig

AUTO_CLASS = "AutoModelForSequenceClassification"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PEFT_SWEEP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "storage"))


def test_publish_finds_an_existing_backbone(
    sources: Callable[..., Source], storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = publish(sources("bert"), AUTO_CLASS, "nf4", True, storage)

    def write(*_: object) -> None:
        raise AssertionError("it was quantized again")

    monkeypatch.setattr(store, "write", write)
    second = publish(sources("bert"), AUTO_CLASS, "nf4", True, storage)
    assert (first.fresh, second.fresh) == (True, False)
    assert (first.digest, first.parameters, first.size) == (second.digest, second.parameters, second.size)
    assert storage.local(first.path).stat().st_size == first.size


def test_publish_writes_into_the_cache_and_downloads_nothing(
    sources: Callable[..., Source], storage: Storage, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads: list[Path] = []
    upload = Storage.upload

    def note(self: Storage, source: Path, path: str) -> None:
        uploads.append(source)
        upload(self, source, path)

    def download(*_: object) -> None:
        raise AssertionError("it was downloaded")

    monkeypatch.setattr(Storage, "upload", note)
    monkeypatch.setattr(Storage, "download", download)
    published = publish(sources("bert"), AUTO_CLASS, "nf4", True, storage)
    file = cache / published.path
    assert uploads == [file]
    assert fetch(published.digest, storage) == file
    assert [entry.suffix for entry in sorted(file.parent.iterdir())] == [".lock", ".safetensors"]


def test_publish_after_a_failed_upload_quantizes_nothing_again(
    sources: Callable[..., Source], storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("the storage is away")

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "upload", refuse)
        with pytest.raises(OSError, match="away"):
            publish(sources("bert"), AUTO_CLASS, "nf4", True, storage)
    monkeypatch.setattr(store, "write", refuse)
    published = publish(sources("bert"), AUTO_CLASS, "nf4", True, storage)
    assert published.fresh
    assert storage.local(published.path).stat().st_size == published.size


def test_publish_into_the_cache_itself_keeps_one_file(sources: Callable[..., Source], cache: Path) -> None:
    published = publish(sources("bert"), AUTO_CLASS, "nf4", True, Storage(str(cache)))
    assert (cache / published.path).stat().st_nlink == 1


def test_backbone_digest_differs_by_every_setting(sources: Callable[..., Source], storage: Storage) -> None:
    settings = [("nf4", True), ("nf4", False), ("fp4", True), ("int8", True), ("int8", False), ("none", False)]
    digests = [publish(sources("bert"), AUTO_CLASS, q, d, storage).digest for q, d in settings]  # type: ignore[arg-type]
    assert len(set(digests)) == 5
    assert digests[3] == digests[4], "int8 has no scales to quantize a second time"
    assert publish(sources("llama"), AUTO_CLASS, "nf4", True, storage).digest not in digests


@pytest.mark.slow
def test_fetch_downloads_once_for_many_lanes(
    sources: Callable[..., Source], storage: Storage, tmp_path: Path, cache: Path
) -> None:
    """Four processes at once: each says whether it was the one that fetched."""
    published = publish(sources("bert"), AUTO_CLASS, "nf4", True, storage)
    fetched = cache / backbone_path(published.digest)
    fetched.unlink()
    program = textwrap.dedent(f"""
        import sys
        from pathlib import Path
        from orchestrator.backbone.store import fetch
        from orchestrator.common.storage import Storage
        downloads = []
        download = Storage.download
        Storage.download = lambda self, path, target: (downloads.append(path), download(self, path, target))
        print("ready", flush=True)
        sys.stdin.readline()
        file = fetch({published.digest!r}, Storage({storage.root!r}))
        print(len(downloads), file.stat().st_size, file, flush=True)
    """)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    lanes = [subprocess.Popen([sys.executable, "-c", program], **pipes) for _ in range(3)]  # type: ignore[call-overload]
    for lane in lanes:
        assert lane.stdout.readline() == "ready\n"
    outputs = []
    for lane in lanes:
        lane.stdin.write("go\n")
        lane.stdin.flush()
    for lane in lanes:
        outputs.append(lane.communicate(timeout=60)[0].split())
    assert sum(int(downloads) for downloads, *_ in outputs) == 1
    assert {(int(size), file) for _, size, file in outputs} == {(published.size, str(fetched))}


def test_fetch_interrupted_leaves_no_complete_file(
    sources: Callable[..., Source], storage: Storage, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = publish(sources("bert"), AUTO_CLASS, "nf4", True, storage)
    (cache / backbone_path(published.digest)).unlink()

    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("orchestrator.common.storage._link_or_copy", cut)
    with pytest.raises(KeyboardInterrupt):
        fetch(published.digest, storage)
    monkeypatch.undo()
    monkeypatch.setenv("PEFT_SWEEP_CACHE", str(cache))
    assert fetch(published.digest, storage).stat().st_size == published.size


def _empty(folder: Path) -> None:
    folder.mkdir()


def _no_weights(folder: Path) -> None:
    folder.mkdir()
    (folder / "config.json").write_text("{}")


def _pickled(folder: Path) -> None:
    _no_weights(folder)
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")


@pytest.mark.parametrize(
    ("make", "words"),
    [(_empty, "no config.json"), (_no_weights, "no *.safetensors"), (_pickled, "convert the checkpoint")],
)
def test_resolve_refuses_a_folder_without_checkpoint(tmp_path: Path, make: Callable[[Path], None], words: str) -> None:
    make(tmp_path / "model")
    with pytest.raises(InputError) as caught:
        resolve(_config(tmp_path / "model"), tmp_path)
    (line,) = caught.value.lines()
    assert words in line


def _config(folder: Path) -> BackboneConfig:
    return BackboneConfig(model=str(folder))


@pytest.fixture
def broken(sources: Callable[..., Source], tmp_path: Path) -> Path:
    """A copy of a checkpoint, to be broken."""
    import shutil

    shutil.copytree(sources("bert").path, tmp_path / "model")
    return tmp_path / "model"


def _cut_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _garbage(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"not at all")


def _unknown_architecture(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "from-the-future"}))


def _other_shape(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 96}))


@pytest.mark.parametrize("damage", [_cut_weights, _garbage, _unknown_architecture, _other_shape])
def test_publish_reports_a_broken_checkpoint_in_one_line(
    broken: Path, storage: Storage, damage: Callable[[Path], None]
) -> None:
    damage(broken)
    with pytest.raises(InputError) as caught:
        publish(resolve(_config(broken), broken), AUTO_CLASS, "nf4", True, storage)
    (line,) = caught.value.lines()
    assert line.startswith("backbone.model: ")
    assert str(broken) in line
    assert not list(Path(storage.root).rglob("*.safetensors"))
