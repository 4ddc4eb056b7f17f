"""A shared folder and a filesystem behind a URI do the same."""

import shutil
from pathlib import Path

import pytest
from pyarrow import fs

from orchestrator.common import storage as module
from orchestrator.common.storage import Storage


@pytest.fixture(params=["folder", "uri"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    place = tmp_path / "shared"
    place.mkdir()
    return Storage.at(str(place)) if request.param == "folder" else Storage(place.as_uri())


def write(folder: Path, **files: str) -> Path:
    """A folder with these files; ``inner__state`` lies in a folder of its own."""
    for name, text in files.items():
        file = folder / name.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


def content(folder: Path) -> dict[str, str]:
    return {str(f.relative_to(folder)): f.read_text() for f in folder.rglob("*") if f.is_file()}


def test_a_file_comes_back_through_folders_that_were_not_there(storage: Storage, tmp_path: Path) -> None:
    source = write(tmp_path / "here", adapter="weights") / "adapter"
    storage.upload(source, "checkpoints/mail/lora/0/adapter")
    storage.download("checkpoints/mail/lora/0/adapter", tmp_path / "away" / "deep" / "adapter")
    assert (tmp_path / "away" / "deep" / "adapter").read_text() == "weights"
    assert source.read_text() == "weights"


def test_a_folder_comes_back_with_its_folders(storage: Storage, tmp_path: Path) -> None:
    files = {"method": "lora", "inner__state": "moments"}
    storage.upload(write(tmp_path / "here", **files), "step-20")
    storage.download("step-20", tmp_path / "away" / "step-20")
    assert content(tmp_path / "away") == {"step-20/method": "lora", "step-20/inner/state": "moments"}


def test_a_replaced_folder_keeps_nothing_of_the_old(storage: Storage, tmp_path: Path) -> None:
    storage.upload(write(tmp_path / "old", left="old", both="old"), "step-20")
    storage.upload(write(tmp_path / "new", both="new"), "step-20")
    for _ in range(2):  # the second replaces what the first brought
        storage.download("step-20", tmp_path / "step-20")
    assert content(tmp_path / "step-20") == {"both": "new"}


def test_a_replaced_file_is_the_new_one(storage: Storage, tmp_path: Path) -> None:
    for text in ("old", "new"):
        storage.upload(write(tmp_path / text, file=text) / "file", "file")
        storage.download("file", tmp_path / "back")
    assert (tmp_path / "back").read_text() == "new"


def test_replacing_leaves_the_file_alone_that_was_uploaded_before(storage: Storage, tmp_path: Path) -> None:
    first, second = (write(tmp_path / text, file=text) / "file" for text in ("first", "second"))
    storage.upload(first, "file")
    storage.upload(second, "file")
    assert (first.read_text(), second.read_text()) == ("first", "second")


def test_nothing_is_left_beside_what_arrived(storage: Storage, tmp_path: Path) -> None:
    source = write(tmp_path / "here", file="text")
    for _ in range(2):  # anew, and in place of what is there
        storage.upload(source, "inner/step")
        storage.download("inner/step", tmp_path / "back" / "step")
    assert [place.name for place in (tmp_path / "shared" / "inner").iterdir()] == ["step"]
    assert [place.name for place in (tmp_path / "back").iterdir()] == ["step"]


def test_exists_of_files_and_folders(storage: Storage, tmp_path: Path) -> None:
    assert not storage.exists("step-20")
    storage.upload(write(tmp_path / "here", state="x"), "step-20")
    assert storage.exists("step-20")
    assert storage.exists("step-20/state")
    assert not storage.exists("step-20/stat")


def test_sub_is_a_storage_of_its_own(storage: Storage, tmp_path: Path) -> None:
    inner = storage.sub("sweep-1")
    inner.upload(write(tmp_path / "here", file="text") / "file", "file")
    assert storage.exists("sweep-1/file")
    assert inner.exists("file")
    assert not storage.exists("file")
    assert inner.is_local is storage.is_local


def test_what_is_not_there_leaves_nothing_behind(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "back").mkdir()
    with pytest.raises(FileNotFoundError):
        storage.download("nowhere", tmp_path / "back" / "file")
    assert not list((tmp_path / "back").iterdir())


def test_a_copy_that_breaks_off_does_not_show(
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


def test_a_broken_upload_keeps_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_place_without_a_scheme_starts_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Storage.at("sweeps").local("a/b") == tmp_path / "sweeps" / "a" / "b"
    assert Storage.at("s3://bucket/sweeps").root == "s3://bucket/sweeps"


def test_a_file_uri_is_a_folder_of_this_machine(tmp_path: Path) -> None:
    place = tmp_path / "with space"
    assert Storage.at(place.as_uri()) == Storage.at(str(place))


def test_a_query_stays_behind_the_path() -> None:
    storage = Storage.at("s3://bucket/sweeps?endpoint_override=localhost:9000&scheme=http")
    assert storage.sub("mail-1").root == "s3://bucket/sweeps/mail-1?endpoint_override=localhost:9000&scheme=http"
