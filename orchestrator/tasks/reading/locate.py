"""From a reference to the files that it names: one file, the shards of a folder or a pattern."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from orchestrator.common.errors import InputError, Problem
from orchestrator.common.uris import PACKAGE, is_uri, mask_secrets, open_location
from orchestrator.tasks.reading.hub import PREFIX, HubDataset
from orchestrator.tasks.reading.source import COMPRESSIONS, FORMATS, DataFile, split_suffix

SAVED = "state.json"
"""The file that lists the shards of a folder from ``save_to_disk``."""
SAVED_SPLITS = "dataset_dict.json"
"""The file that lists the splits of such a folder."""
_SPLIT_NAMES = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}


def locate(reference: str, base: Path) -> Sequence[DataFile | HubDataset]:
    """Return the files of a reference, in the order of their names with numbers by size.

    Args:
        reference: A path, a URI, or ``package:NAME/SUBPATH``; of a file, of a folder, or with ``*``, ``?``, ``[]``; or
            a data set of the hub.
        base: The folder that relative paths start from.

    Raises:
        InputError: If there is no such file, or a folder without data files or with several splits.
    """
    from pyarrow import fs

    if reference.startswith(PREFIX):
        return [HubDataset(reference)]
    filesystem, path = open_location(reference, base)
    info = _info(filesystem, path, reference)
    if info.type == fs.FileType.File:
        if not split_suffix(PurePosixPath(path).name)[0]:
            raise _problem(reference, f"must end in {suffixes()}")
        return [DataFile(filesystem, path)]
    if info.type == fs.FileType.Directory:
        return _of_folder(filesystem, path, reference)
    if not is_pattern(reference):
        raise _problem(reference, "there is no such file")
    files = _matching(filesystem, path)
    if not files:
        raise _problem(reference, "matches no file")
    return files


def suffixes() -> str:
    """Return the suffixes that files can have, for messages."""
    return f"{', '.join(FORMATS)}, or one of these and {', '.join(COMPRESSIONS)}"


def is_pattern(reference: str) -> bool:
    """Return whether a reference has wildcards."""
    return not reference.startswith(PACKAGE) and any(character in reference for character in "*?[")


def splits_beside(reference: str, base: Path) -> dict[str, str]:
    """Return the files of all splits that a folder or the name of a file of training rows tells of.

    Returns:
        References by split: all three, or ``train`` alone, or none where there are no splits to be seen.

    Raises:
        InputError: If there is no such file or folder.
    """
    from pyarrow import fs

    if reference.startswith(PREFIX):
        return {}
    filesystem, path = open_location(reference, base)
    info = _info(filesystem, path, reference)
    if info.type == fs.FileType.Directory:
        found = _splits_of_folder(filesystem, path, reference)
    elif info.type == fs.FileType.File and "train" in info.base_name:
        folder = fs.FileSelector(str(PurePosixPath(path).parent))
        names = {entry.base_name for entry in filesystem.get_file_info(folder)}
        found = {
            split: reference.removesuffix(info.base_name) + name
            for split, aliases in _SPLIT_NAMES.items()
            for name in [info.base_name.replace("train", alias) for alias in aliases]
            if name in names
        }
    else:
        return {}
    if len(found) == 3:
        return found
    return {"train": found["train"]} if "train" in found else {}


def _splits_of_folder(filesystem: Any, path: str, reference: str) -> dict[str, str]:
    """Return the references of a folder's splits, by their names in this project; empty if it holds one split."""
    from pyarrow import fs

    infos = filesystem.get_file_info(fs.FileSelector(path))
    folder = reference.rstrip("/")
    if any(info.base_name == SAVED_SPLITS for info in infos):
        names = _json(filesystem, f"{path}/{SAVED_SPLITS}")["splits"]
        return {
            split: f"{folder}/{name}" for split, aliases in _SPLIT_NAMES.items() for name in names if name in aliases
        }
    files = [DataFile(filesystem, info.path) for info in infos if _is_data(info)]
    splits = {split: [file for file in files if _split_of(file.name) == split] for split in _SPLIT_NAMES}
    if not splits["train"] or not (splits["validation"] or splits["test"]):
        return {}
    return {split: f"{folder}/{_pattern(found)}" for split, found in splits.items() if found}


def _of_folder(filesystem: Any, path: str, reference: str) -> list[DataFile]:
    from pyarrow import fs

    if splits := _splits_of_folder(filesystem, path, reference):
        written = ", ".join(f"{split}: {splits.get(split, '...')}" for split in _SPLIT_NAMES)
        raise _problem(reference, f"is a folder of several splits; write data: {{{written}}}")
    infos = filesystem.get_file_info(fs.FileSelector(path))
    if any(info.base_name == SAVED for info in infos):
        shards = _json(filesystem, f"{path}/{SAVED}").get("_data_files") or []
        return [DataFile(filesystem, f"{path}/{shard['filename']}") for shard in shards]
    files = [DataFile(filesystem, info.path) for info in infos if _is_data(info)]
    if not files:
        raise _problem(reference, f"is a folder without a file that ends in {suffixes()}")
    return _sorted(files)


def _matching(filesystem: Any, path: str) -> list[DataFile]:
    """Return the data files that match a pattern: ``**/`` is any number of folders."""
    from pyarrow import fs

    fixed = re.split(r"[*?\[]", path)[0].rpartition("/")[0]
    tokens = re.split(r"(\*\*/|\*|\?|\[[^\]]*\])", path)
    special = {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}
    regex = "".join(special.get(t, t if t.startswith("[") and t.endswith("]") else re.escape(t)) for t in tokens)
    selector = fs.FileSelector(fixed or ".", allow_not_found=True, recursive=True)
    infos = filesystem.get_file_info(selector)
    return _sorted([DataFile(filesystem, i.path) for i in infos if _is_data(i) and re.fullmatch(regex, i.path)])


def _is_data(info: Any) -> bool:
    name = info.base_name
    return bool(info.is_file and not name.startswith((".", "_")) and split_suffix(name)[0]) and name not in (
        SAVED,
        SAVED_SPLITS,
        "dataset_info.json",
    )


def _sorted(files: list[DataFile]) -> list[DataFile]:
    def order(file: DataFile) -> list[Any]:
        return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", file.path)]

    return sorted(files, key=order)


def _split_of(name: str) -> str:
    """Return the split that a file's name begins with, as ``train-00000-of-00002.parquet`` does; empty if none."""
    first = re.split(r"[-_.]", name.lower())[0]
    return next((split for split, names in _SPLIT_NAMES.items() if first in names), "")


def _pattern(files: Sequence[DataFile]) -> str:
    """Return a pattern of the files of one split, or the name of its only file."""
    return files[0].name if len(files) == 1 else re.split(r"[-_.]", files[0].name)[0] + "*"


def _info(filesystem: Any, path: str, reference: str) -> Any:
    try:
        return filesystem.get_file_info(path)
    except OSError as error:
        raise _problem(reference, f"cannot be reached: {mask_secrets(str(error)).splitlines()[0]}") from error


def _json(filesystem: Any, path: str) -> Any:
    try:
        with filesystem.open_input_stream(path) as stream:
            return json.loads(stream.read())
    except (OSError, ValueError) as error:
        raise _problem(path, f"cannot be read: {str(error).splitlines()[0]}") from error


def _problem(reference: str, message: str) -> InputError:
    return InputError(mask_secrets(reference) if is_uri(reference) else reference, [Problem("", message)])
