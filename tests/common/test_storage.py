"""A storage at a path and one at a URI behave alike."""

import io
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
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

    def break_off(source: str, target: str, **options: Any) -> None:
        copy_files(source, target, **options)
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


class CountingFilesystem(fs.FileSystemHandler):
    """An object store in a folder, which counts the reads of files and the writes to them.

    Args:
        folder: folder of the objects.
    """

    def __init__(self, folder: Path) -> None:
        self.base = fs.SubTreeFileSystem(str(folder), fs.LocalFileSystem())
        self.reads: list[int] = []
        self.writes: list[int] = []

    def get_type_name(self) -> str:
        return "counting"

    def normalize_path(self, path: str) -> str:
        return path

    def get_file_info(self, paths: list[str]) -> list[fs.FileInfo]:
        infos: list[fs.FileInfo] = self.base.get_file_info(paths)
        return infos

    def get_file_info_selector(self, selector: fs.FileSelector) -> list[fs.FileInfo]:
        infos: list[fs.FileInfo] = self.base.get_file_info(selector)
        return infos

    def create_dir(self, path: str, recursive: bool) -> None:
        self.base.create_dir(path, recursive=recursive)

    def open_input_stream(self, path: str) -> pa.PythonFile:
        return pa.PythonFile(CountingFile(self.base.open_input_stream(path), self.reads), mode="r")

    def open_output_stream(self, path: str, metadata: dict[str, str]) -> pa.PythonFile:
        return pa.PythonFile(CountingFile(self.base.open_output_stream(path), self.writes), mode="w")

    def _unused(self, *arguments: object) -> None:
        raise NotImplementedError

    delete_dir = delete_dir_contents = delete_root_dir_contents = delete_file = _unused
    move = copy_file = open_input_file = open_append_stream = _unused


class CountingFile(io.RawIOBase):
    """A file that records the sizes of the requests that it serves, in bytes.

    Args:
        stream: the file underneath.
        sizes: list that each request's size is added to.
    """

    def __init__(self, stream: pa.NativeFile, sizes: list[int]) -> None:
        self.stream, self.sizes = stream, sizes

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data: bytes = self.stream.read(size)
        self.sizes.append(len(data))
        return data

    def write(self, data: Any) -> int:
        self.sizes.append(len(data))
        written: int = self.stream.write(data)
        return written

    def close(self) -> None:
        self.stream.close()
        super().close()


def test_storage_copies_large_files_in_few_requests(tmp_path: Path) -> None:
    """A request to an object store takes tens of milliseconds, whatever its size."""
    (tmp_path / "store").mkdir()
    handler = CountingFilesystem(tmp_path / "store")
    storage = Storage("counting://bucket")
    storage.__dict__["_filesystem"] = (fs.PyFileSystem(handler), "bucket")
    source = tmp_path / "backbone"
    size = 80 * 2**20
    with source.open("wb") as file:
        file.truncate(size)
    storage.upload(source, "backbones/digest")
    storage.download("backbones/digest", tmp_path / "node" / "backbone")
    assert (tmp_path / "node" / "backbone").stat().st_size == size
    for sizes in (handler.reads, handler.writes):
        requests = [request for request in sizes if request]
        assert sum(requests) == size
        assert len(requests) <= 2
