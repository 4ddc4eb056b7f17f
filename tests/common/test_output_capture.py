"""What libraries print goes to the log; only the display writes to the terminal."""

import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from orchestrator.common.output_capture import no_library_noise, output_to, terminal_stream


def test_output_to_redirects_everything_printed_to_the_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "sweeps" / "sweep.log"
    print("before")
    with output_to(log):
        print("python out")
        print("python err", file=sys.stderr)
        os.write(1, b"raw out\n")
        os.write(2, b"raw err\n")
        subprocess.run([sys.executable, "-c", "print('child out')"], check=True)
        logging.getLogger("library").warning("logged")
    print("after")
    written = log.read_text()
    for text in ("python out", "python err", "raw out", "raw err", "child out", "WARNING library: logged"):
        assert text in written
    assert capfd.readouterr() == ("before\nafter\n", "")


def test_output_to_redirects_warnings(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with output_to(tmp_path / "log"):
            warnings.warn("deprecated", DeprecationWarning, stacklevel=1)
    assert "deprecated" in (tmp_path / "log").read_text()
    assert capfd.readouterr() == ("", "")


def test_output_to_appends_to_the_log(tmp_path: Path) -> None:
    for text in ("first", "second"):
        with output_to(tmp_path / "log"):
            print(text)
    assert (tmp_path / "log").read_text() == "first\nsecond\n"


def test_terminal_stream_is_not_redirected(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with terminal_stream() as stream, output_to(tmp_path / "log"):
        print("shown", file=stream)
        print("hidden")
    assert capfd.readouterr() == ("", "shown\n")
    assert "shown" not in (tmp_path / "log").read_text()


def test_output_to_restores_everything_after_an_exception(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    streams, handlers = (sys.stdout, sys.stderr), list(logging.getLogger().handlers)
    shows, descriptors = warnings.showwarning, len(os.listdir("/proc/self/fd"))
    with pytest.raises(RuntimeError, match="broken"), output_to(tmp_path / "log"):
        raise RuntimeError("broken")
    assert (sys.stdout, sys.stderr) == streams
    assert logging.getLogger().handlers == handlers
    assert warnings.showwarning is shows
    assert len(os.listdir("/proc/self/fd")) == descriptors
    os.write(1, b"out")
    os.write(2, b"err")
    assert capfd.readouterr() == ("out", "err")
    assert (tmp_path / "log").read_text() == ""


def test_no_library_noise_silences_libraries_only_inside(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    library = logging.getLogger("library")

    def work() -> None:
        library.error("noise")
        warnings.warn("noise", stacklevel=1)
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"), no_library_noise():
        work()
    library.error("news")
    assert caplog.messages == ["news"]
    assert capfd.readouterr() == ("", "")
    with pytest.warns(UserWarning, match="again"):
        warnings.warn("again", stacklevel=1)


def test_output_to_masks_passwords_in_messages_and_tracebacks(tmp_path: Path) -> None:
    with output_to(tmp_path / "sweep.log"):
        try:
            raise ConnectionError("no answer from https://ann:s3cret@host/api")
        except ConnectionError:
            logging.getLogger("mlflow").exception("tried %s", "postgresql+psycopg://ann:s3cret@host/db")
    text = (tmp_path / "sweep.log").read_text()
    assert "s3cret" not in text
    assert "tried postgresql+psycopg://***@host/db" in text
    assert "ConnectionError: no answer from https://***@host/api" in text
