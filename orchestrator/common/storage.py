"""Storage that every node of a sweep can reach: a shared folder or an object store."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from pyarrow import fs

from orchestrator.common.retry import Retry
from orchestrator.common.uris import expand_home, mask_secrets

T = TypeVar("T")

# Bytes that a copy moves in one request. pyarrow's own size is 1 MiB, at which a backbone of 6 GB takes about 6,000
# requests, one after another, and most of the time is an object store's latency.
CHUNK_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Storage:
    """A folder behind a path or a pyarrow filesystem URI (``s3://bucket/folder``).

    A file appears under its name only when it is complete: a local file is written beside its target and renamed, and
    an object store shows an object when its upload has ended.

    Args:
        root: absolute path, or URI.
        retry: how long each request is tried again while the storage cannot be reached; ``None`` for never.
    """

    root: str
    retry: Retry | None = field(default=None, compare=False, repr=False)

    @classmethod
    def at(cls, location: str, retry: Retry | None = None) -> Storage:
        """Return the storage at a location.

        Args:
            location: a path, relative to the working directory or absolute, or a URI.
            retry: as for the class.

        Raises:
            InputError: if the path begins with ``~``, and the home directory is not known.
        """
        if location.startswith("file://"):
            location = unquote(urlsplit(location).path)
        return cls(location if "://" in location else str(expand_home(location).resolve()), retry)

    @property
    def is_local(self) -> bool:
        """Whether the root is a folder of this machine's file system, which may be a network mount."""
        return "://" not in self.root

    @cached_property
    def _filesystem(self) -> tuple[fs.FileSystem, str]:
        filesystem, path = fs.FileSystem.from_uri(self.root)
        return filesystem, path

    def sub(self, path: str) -> Storage:
        """Return the storage of a folder inside this one.

        Args:
            path: the folder, relative to the root. The query of a URI, such as ``endpoint_override``, stays at its end.
        """
        root, separator, query = self.root.partition("?") if "://" in self.root else (self.root, "", "")
        return replace(self, root=f"{root}/{path}{separator}{query}")

    def local(self, path: str) -> Path:
        """Return the absolute path of a file of a local storage."""
        return Path(self.root) / path

    def exists(self, path: str) -> bool:
        """Return whether a file or folder exists."""
        return self._request(lambda: self._exists(path))

    def _exists(self, path: str) -> bool:
        if self.is_local:
            return self.local(path).exists()
        filesystem, root = self._filesystem
        return bool(filesystem.get_file_info(f"{root}/{path}").type != fs.FileType.NotFound)

    def upload(self, source: Path, path: str) -> None:
        """Copy a local file or folder into the storage, and replace what exists under that name.

        Args:
            source: local file or folder.
            path: its name in the storage, relative to the root.
        """
        self._request(lambda: self._upload(source, path))

    def _upload(self, source: Path, path: str) -> None:
        if self.is_local:
            _copy_atomically(source, self.local(path))
            return
        filesystem, root = self._filesystem
        target = f"{root}/{path}"
        if filesystem.get_file_info(target).type == fs.FileType.Directory:
            filesystem.delete_dir(target)
        # some filesystems cannot create a file in a folder that does not exist
        filesystem.create_dir(target if source.is_dir() else target.rpartition("/")[0])
        fs.copy_files(
            str(source),
            target,
            source_filesystem=fs.LocalFileSystem(),
            destination_filesystem=filesystem,
            chunk_size=CHUNK_BYTES,
        )

    def download(self, path: str, target: Path) -> None:
        """Copy a file or folder out of the storage. The target is replaced once the copy is complete.

        Args:
            path: file or folder, relative to the root.
            target: local path to write.
        """
        self._request(lambda: self._download(path, target))

    def _download(self, path: str, target: Path) -> None:
        if self.is_local:
            _copy_atomically(self.local(path), target)
            return
        filesystem, root = self._filesystem
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".incoming-") as folder:
            incoming = Path(folder) / target.name
            if filesystem.get_file_info(f"{root}/{path}").type == fs.FileType.Directory:
                incoming.mkdir()
            fs.copy_files(
                f"{root}/{path}",
                str(incoming),
                source_filesystem=filesystem,
                destination_filesystem=fs.LocalFileSystem(),
                chunk_size=CHUNK_BYTES,
            )
            _copy_atomically(incoming, target)

    def read(self, path: str) -> bytes:
        """Return the content of a file."""
        return self._request(lambda: self._read(path))

    def _read(self, path: str) -> bytes:
        filesystem, root = self._opened
        with filesystem.open_input_stream(f"{root}/{path}") as stream:
            content: bytes = stream.read()
            return content

    def write(self, path: str, content: bytes) -> None:
        """Write a file, over the one that exists under that name."""
        with tempfile.TemporaryDirectory() as folder:
            (source := Path(folder) / "file").write_bytes(content)
            self.upload(source, path)

    def files(self, path: str) -> dict[str, int]:
        """Return the size in bytes of each file in a folder and its folders, by its path relative to the folder."""
        return self._request(lambda: self._files(path))

    def _files(self, path: str) -> dict[str, int]:
        filesystem, root = self._opened
        folder = f"{root}/{path}".rstrip("/")
        found = filesystem.get_file_info(fs.FileSelector(folder, recursive=True, allow_not_found=True))
        return {info.path[len(folder) + 1 :]: info.size for info in found if info.type == fs.FileType.File}

    def folders(self, path: str = "") -> list[str]:
        """Return the names of the folders in a folder."""
        filesystem, root = self._opened
        selector = fs.FileSelector(f"{root}/{path}".rstrip("/"), allow_not_found=True)
        found = self._request(lambda: filesystem.get_file_info(selector))
        return sorted(info.base_name for info in found if info.type == fs.FileType.Directory)

    def delete(self, path: str) -> None:
        """Delete a file or folder; one that does not exist is left alone."""
        self._request(lambda: self._delete(path))

    def _delete(self, path: str) -> None:
        filesystem, root = self._opened
        target = f"{root}/{path}"
        match filesystem.get_file_info(target).type:
            case fs.FileType.Directory:
                filesystem.delete_dir(target)
            case fs.FileType.File:
                filesystem.delete_file(target)

    def modified_at(self, path: str) -> float | None:
        """Return when a file was written, in seconds by the storage's own clock; ``None`` if there is no such file."""
        filesystem, root = self._opened
        info = self._request(lambda: filesystem.get_file_info(f"{root}/{path}"))
        return info.mtime_ns / 1e9 if info.type == fs.FileType.File else None

    @property
    def _opened(self) -> tuple[fs.FileSystem, str]:
        return (fs.LocalFileSystem(), self.root) if self.is_local else self._filesystem

    def _request(self, request: Callable[[], T]) -> T:
        return self.retry.run(request, mask_secrets(self.root)) if self.retry else request()


def _copy_atomically(source: Path, target: Path) -> None:
    """Copy to a temporary name beside the target, then rename. Within one file system files are hard-linked."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".incoming-") as folder:
        incoming = Path(folder) / target.name
        if source.is_dir():
            shutil.copytree(source, incoming, copy_function=_link_or_copy)
            if target.exists():
                shutil.rmtree(target)
        else:
            _link_or_copy(source, incoming)
        os.replace(incoming, target)


def _link_or_copy(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
