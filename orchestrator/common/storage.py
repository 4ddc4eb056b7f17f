"""The one place that every node of a sweep reaches: a shared folder or an object store."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pyarrow import fs


@dataclass(frozen=True)
class Storage:
    """A folder behind a path or a pyarrow filesystem URI (``s3://bucket/folder``).

    Files appear under their name at once and whole: a local file is written aside and renamed, an
    object store shows an object when its upload is complete.

    Args:
        root: absolute path, or URI.
    """

    root: str

    @classmethod
    def at(cls, place: str) -> Storage:
        """A storage at a path relative to the working directory, or at a URI."""
        if place.startswith("file://"):
            place = unquote(urlsplit(place).path)
        return cls(place if "://" in place else str(Path(place).expanduser().resolve()))

    @property
    def is_local(self) -> bool:
        """Whether it is a folder of this machine's file system (which may be a network mount)."""
        return "://" not in self.root

    @cached_property
    def _place(self) -> tuple[fs.FileSystem, str]:
        filesystem, path = fs.FileSystem.from_uri(self.root)
        return filesystem, path

    def sub(self, path: str) -> Storage:
        """The storage of a folder inside."""
        root, separator, query = self.root.partition("?") if "://" in self.root else (self.root, "", "")
        return Storage(f"{root}/{path}{separator}{query}")

    def local(self, path: str) -> Path:
        """A local storage's own file."""
        return Path(self.root) / path

    def exists(self, path: str) -> bool:
        """Whether a file or folder is there."""
        if self.is_local:
            return self.local(path).exists()
        filesystem, root = self._place
        return bool(filesystem.get_file_info(f"{root}/{path}").type != fs.FileType.NotFound)

    def upload(self, source: Path, path: str) -> None:
        """Store a file, or a folder's files, under ``path``; what was there is replaced."""
        if self.is_local:
            _place(source, self.local(path))
            return
        filesystem, root = self._place
        place = f"{root}/{path}"
        if filesystem.get_file_info(place).type == fs.FileType.Directory:
            filesystem.delete_dir(place)
        # some filesystems open no file in a folder that is not there
        filesystem.create_dir(place if source.is_dir() else place.rpartition("/")[0])
        fs.copy_files(str(source), place, source_filesystem=fs.LocalFileSystem(), destination_filesystem=filesystem)

    def download(self, path: str, target: Path) -> None:
        """Bring a file or folder to the local ``target``, whole or not at all; what was there is replaced."""
        if self.is_local:
            _place(self.local(path), target)
            return
        filesystem, root = self._place
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".incoming-") as folder:
            aside = Path(folder) / target.name
            if filesystem.get_file_info(f"{root}/{path}").type == fs.FileType.Directory:
                aside.mkdir()
            fs.copy_files(
                f"{root}/{path}", str(aside), source_filesystem=filesystem, destination_filesystem=fs.LocalFileSystem()
            )
            _place(aside, target)


def _place(source: Path, target: Path) -> None:
    """Copy aside, then rename; files on one file system are linked instead of copied."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".incoming-") as folder:
        aside = Path(folder) / target.name
        if source.is_dir():
            shutil.copytree(source, aside, copy_function=_link_or_copy)
            if target.exists():
                shutil.rmtree(target)
        else:
            _link_or_copy(source, aside)
        os.replace(aside, target)


def _link_or_copy(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
