"""A storage that a sweep could not use is told before anything is read."""

from __future__ import annotations

import pwd
from pathlib import Path

import pytest

from orchestrator.common import storage_check
from orchestrator.common.errors import InputError
from orchestrator.common.storage_check import require_storage

from ..s3_server import s3_server


def refusal(storage: str) -> str:
    with pytest.raises(InputError) as caught:
        require_storage(storage)
    (line,) = caught.value.lines()
    return line


def test_storage_check_takes_folders_and_writes_nothing(tmp_path: Path) -> None:
    require_storage(str(tmp_path / "new" / "sweeps"))
    require_storage((tmp_path / "new").as_uri())
    require_storage("fsspec+memory://sweeps")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("storage", "words"),
    [
        ("/proc/sweeps", "/proc cannot be written to ("),
        (
            "~nobody-of-this-name/x",
            "the home directory of ~nobody-of-this-name is not known here; write",
        ),
        ("https://example.com/x", "is no storage that can be opened (Unrecognized filesystem type"),
        ("fsspec+nothing://x", "is no storage that can be opened (Protocol not known: nothing); write a folder, or"),
        ("s3://", "names no bucket; write s3://BUCKET/FOLDER"),
    ],
)
def test_storage_check_tells_what_cannot_be_used(storage: str, words: str) -> None:
    assert refusal(storage).startswith(f"storage: {storage}: {words}")


def test_storage_check_tells_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("")
    file = tmp_path / "rows.csv"
    assert refusal(f"{file}/sweeps") == f"storage: {file}/sweeps: {file} is a file; write a folder"


def test_storage_check_tells_a_home_that_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_: int) -> None:
        raise KeyError

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert refusal("~/x") == "storage: ~/x: the home directory of ~ is not known here; write the whole path"


def test_storage_check_asks_an_object_store() -> None:
    with s3_server() as server:
        require_storage(server.uri())
        assert server.objects() == {}
        other = server.uri().replace("s3://bucket", "s3://other")
        assert "there is no bucket other, or it cannot be seen with these credentials" in refusal(other)
        server.stop()
        line = refusal(server.uri())
    assert "cannot be reached (" in line
    assert line.endswith("; check the URI, the network and the credentials")
    assert len(line) < 500


def test_storage_check_hides_keys_in_uris() -> None:
    assert "hunter2" not in refusal("https://ada:hunter2@host/x?secret_key=hunter2")


def test_storage_check_waits_no_longer_than_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    answered = threading.Event()
    monkeypatch.setattr(storage_check, "LIMIT_S", 0.05)
    monkeypatch.setattr(storage_check, "_answer", lambda _: answered.wait(10) and "")
    assert "did not answer in 0.05 s; check the URI, the network" in refusal("s3://bucket/x")
    answered.set()
