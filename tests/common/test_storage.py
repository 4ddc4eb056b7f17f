"""A storage at a path and one at a URI behave alike."""

import shutil
from pathlib import Path

import pytest
from pyarrow import fs

from orchestrator.common import storage as module
from orchestrator.common.storage import Storage


@pytest.fixture(params=["folder", "uri"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    folder = tmp_path / "shared"
    folder.mkdir()
    return Storage.at(str(folder)) if request.param == "folder" else Storage(folder.as_uri())


def write(folder: Path, **files: str) -> Path:
    """Write files into a folder and return it; ``inner__state`` is ``inner/state``."""
    for name, text in files.items():
        file = folder / name.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


def content(folder: Path) -> dict[str, str]:
    return {str(f.relative_to(folder)): f.read_text() for f in folder.rglob("*") if f.is_file()}


def test_storage_creates_missing_folders_for_a_file(storage: Storage, tmp_path: Path) -> None:
    source = write(tmp_path / "here", adapter="weights") / "adapter"
    storage.upload(source, "checkpoints/mail/lora/0/adapter")
    storage.download("checkpoints/mail/lora/0/adapter", tmp_path / "away" / "deep" / "adapter")
    assert (tmp_path / "away" / "deep" / "adapter").read_text() == "weights"
    assert source.read_text() == "weights"


def test_storage_keeps_nested_folders(storage: Storage, tmp_path: Path) -> None:
    files = {"method": "lora", "inner__state": "moments"}
    storage.upload(write(tmp_path / "here", **files), "step-20")
    storage.download("step-20", tmp_path / "away" / "step-20")
    assert content(tmp_path / "away") == {"step-20/method": "lora", "step-20/inner/state": "moments"}


def test_storage_replaces_a_folder_completely(storage: Storage, tmp_path: Path) -> None:
    storage.upload(write(tmp_path / "old", left="old", both="old"), "step-20")
    storage.upload(write(tmp_path / "new", both="new"), "step-20")
    for _ in range(2):  # the second replaces what the first brought
        storage.download("step-20", tmp_path / "step-20")
    assert content(tmp_path / "step-20") == {"both": "new"}


def test_storage_replaces_a_file(storage: Storage, tmp_path: Path) -> None:
    for text in ("old", "new"):
        storage.upload(write(tmp_path / text, file=text) / "file", "file")
        storage.download("file", tmp_path / "back")
    assert (tmp_path / "back").read_text() == "new"


def test_storage_upload_leaves_earlier_sources_unchanged(storage: Storage, tmp_path: Path) -> None:
    first, second = (write(tmp_path / text, file=text) / "file" for text in ("first", "second"))
    storage.upload(first, "file")
    storage.upload(second, "file")
    assert (first.read_text(), second.read_text()) == ("first", "second")


def test_storage_leaves_no_temporary_files(storage: Storage, tmp_path: Path) -> None:
    source = write(tmp_path / "here", file="text")
    for _ in range(2):  # anew, and in place of what is there
        storage.upload(source, "inner/step")
        storage.download("inner/step", tmp_path / "back" / "step")
    assert [place.name for place in (tmp_path / "shared" / "inner").iterdir()] == ["step"]
    assert [place.name for place in (tmp_path / "back").iterdir()] == ["step"]


def test_storage_exists_for_files_and_folders(storage: Storage, tmp_path: Path) -> None:
    assert not storage.exists("step-20")
    storage.upload(write(tmp_path / "here", state="x"), "step-20")
    assert storage.exists("step-20")
    assert storage.exists("step-20/state")
    assert not storage.exists("step-20/stat")


def test_storage_sub_has_its_own_root(storage: Storage, tmp_path: Path) -> None:
    inner = storage.sub("sweep-1")
    inner.upload(write(tmp_path / "here", file="text") / "file", "file")
    assert storage.exists("sweep-1/file")
    assert inner.exists("file")
    assert not storage.exists("file")
    assert inner.is_local is storage.is_local


def test_storage_download_of_missing_file_leaves_nothing(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "back").mkdir()
    with pytest.raises(FileNotFoundError):
        storage.download("nowhere", tmp_path / "back" / "file")
    assert not list((tmp_path / "back").iterdir())


def test_storage_download_that_fails_leaves_nothing(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.upload(write(tmp_path / "here", state="whole"), "step-20")
    copy_files = fs.copy_files

    def break_off(source: str, target: str, **filesystems: fs.FileSystem) -> None:
        copy_files(source, target, **filesystems)
        raise OSError("disk full")

    def half_copy(source: str | Path, target: str | Path) -> None:
        shutil.copy(source, target)
        raise OSError("disk full")

    monkeypatch.setattr(fs, "copy_files", break_off)
    monkeypatch.setattr(module, "_link_or_copy", half_copy)
    (tmp_path / "back").mkdir()
    for path, target in (("step-20", "folder"), ("step-20/state", "file")):
        with pytest.raises((OSError, shutil.Error), match="disk full"):
            storage.download(path, tmp_path / "back" / target)
    assert not list((tmp_path / "back").iterdir())


def test_storage_upload_that_fails_keeps_the_old_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage.at(str(tmp_path / "shared"))
    storage.upload(write(tmp_path / "old", state="whole"), "step-20")

    def half_copy(source: str | Path, target: str | Path) -> None:
        Path(target).write_text("ha")
        raise OSError("disk full")

    monkeypatch.setattr(module, "_link_or_copy", half_copy)
    with pytest.raises(shutil.Error, match="disk full"):
        storage.upload(write(tmp_path / "new", state="new"), "step-20")
    with pytest.raises(OSError, match="disk full"):
        storage.upload(tmp_path / "new" / "state", "single")
    assert content(tmp_path / "shared") == {"step-20/state": "whole"}


def test_storage_path_starts_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Storage.at("sweeps").local("a/b") == tmp_path / "sweeps" / "a" / "b"
    assert Storage.at("s3://bucket/sweeps").root == "s3://bucket/sweeps"


def test_storage_of_a_file_uri_is_local(tmp_path: Path) -> None:
    place = tmp_path / "with space"
    assert Storage.at(place.as_uri()) == Storage.at(str(place))


def test_storage_sub_keeps_the_query_of_a_uri() -> None:
    storage = Storage.at("s3://bucket/sweeps?endpoint_override=localhost:9000&scheme=http")
    assert storage.sub("mail-1").root == "s3://bucket/sweeps/mail-1?endpoint_override=localhost:9000&scheme=http"
