"""Requests that are tried again, and those that are not."""

from __future__ import annotations

import errno
import pickle
import threading
from collections.abc import Callable

import pytest

from orchestrator.common.retry import Retry, StorageError, disk_error


def failing(times: int, error: OSError) -> tuple[Callable[[], str], list[int]]:
    """Return a request that fails a number of times, and the list of its calls."""
    calls: list[int] = []

    def request() -> str:
        calls.append(len(calls))
        if len(calls) <= times:
            raise error
        return "done"

    return request, calls


def test_retry_repeats_a_request_until_it_succeeds(caplog: pytest.LogCaptureFixture) -> None:
    request, calls = failing(4, OSError("quota exceeded"))
    assert Retry(60.0, first_pause_s=0.001).run(request, "s3://bucket") == "done"
    assert len(calls) == 5
    away, back = "s3://bucket cannot be reached, trying for 60 s: quota exceeded", "s3://bucket is reached again"
    assert caplog.messages == [away, back]
    request, _ = failing(0, OSError("quota exceeded"))
    assert Retry(60.0).run(request, "s3://bucket") == "done"
    assert caplog.messages == [away, back]


def test_retry_gives_up_after_its_limit() -> None:
    request, calls = failing(10**9, ConnectionError("no route"))
    with pytest.raises(StorageError, match=r"^the storage s3://bucket could not be reached for 0 s: no route$"):
        Retry(0.2, first_pause_s=0.01).run(request, "s3://bucket")
    assert 3 < len(calls) < 30, "pauses grow"


def test_retry_masks_secrets_in_its_log_and_its_error(caplog: pytest.LogCaptureFixture) -> None:
    request, _ = failing(10**9, ConnectionError("no route to s3://KEY:secret@bucket?session_token=5"))
    with pytest.raises(StorageError, match=r": no route to s3://\*\*\*@bucket\?session_token=\*\*\*$"):
        Retry(0.0).run(request, "s3://bucket")
    assert caplog.messages[0].endswith(": no route to s3://***@bucket?session_token=***")


def test_retry_does_not_repeat_what_the_storage_has_answered() -> None:
    request, calls = failing(1, FileNotFoundError("no such file"))
    with pytest.raises(FileNotFoundError):
        Retry().run(request, "s3://bucket")
    assert len(calls) == 1


def test_cancelled_retry_ends_its_pause() -> None:
    retry, errors = Retry(600.0, first_pause_s=600.0), list[Exception]()
    started = threading.Event()

    def request() -> None:
        started.set()
        raise OSError("away")

    def run() -> None:
        try:
            retry.run(request, "s3://bucket")
        except StorageError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert started.wait(60)
    retry.cancel()
    thread.join(60)
    assert len(errors) == 1


def test_retry_travels_to_other_processes() -> None:
    copy = pickle.loads(pickle.dumps(Retry(7.0, 2.0, 3.0)))
    assert (copy.limit_s, copy.first_pause_s, copy.longest_pause_s) == (7.0, 2.0, 3.0)


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), errno.ENOSPC),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), errno.EDQUOT),
        (RuntimeError("I/O error: No space left on device (os error 28)"), errno.ENOSPC),
        (FileNotFoundError(errno.ENOENT, "no such file"), None),
        (RuntimeError("the method's own (os error 2)"), None),
        (ValueError("28"), None),
    ],
)
def test_disk_errors_are_told_from_others(error: Exception, number: int | None) -> None:
    found = disk_error(error)
    assert (found.errno if found else None) == number
