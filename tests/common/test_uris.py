import pytest

from orchestrator.common.errors import InputError
from orchestrator.common.uris import local_path, locate_package, mask_secrets, open_location


def test_package_reference_is_resolved_without_import(tmp_path, monkeypatch):
    package = tmp_path / "some_data"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "rows.csv").write_text("x")
    monkeypatch.syspath_prepend(tmp_path)
    assert locate_package("package:some_data/rows.csv") == package / "rows.csv"
    assert locate_package("package:some_data") == package
    with pytest.raises(InputError, match="package some_data has no other"):
        locate_package("package:some_data/other")


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("package:not_there/x", "pip install not-there"),
        ("package:json/../os.py", "inside the package"),
        ("package:/etc", "write package:NAME/SUBPATH"),
        ("package:a.b/x", "write package:NAME/SUBPATH"),
    ],
)
def test_package_reference_refuses_what_no_package_has(reference, message):
    with pytest.raises(InputError, match=message):
        locate_package(reference)


def test_local_path_starts_from_the_base(tmp_path):
    assert local_path("a/b.csv", tmp_path) == tmp_path / "a/b.csv"
    assert str(local_path("/a/b.csv", tmp_path)) == "/a/b.csv"
    assert local_path("s3://bucket/b.csv", tmp_path) is None


def test_open_location_opens_the_filesystem_of_a_uri(tmp_path):
    (tmp_path / "x").write_text("hello")
    filesystem, path = open_location(f"file://{tmp_path}/x", tmp_path)
    with filesystem.open_input_stream(path) as stream:
        assert stream.read() == b"hello"


def test_open_location_refuses_unknown_scheme_without_secrets(tmp_path):
    with pytest.raises(InputError) as raised:
        open_location("sftp://me:hunter2@host/x", tmp_path)
    assert len(raised.value.lines()) == 1
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("s3://key:secret@bucket/x", "s3://***@bucket/x"),
        ("http://host/a@b", "http://host/a@b"),
        ("x://h?password=p&a=1&access_token=q#f", "x://h?password=***&a=1&access_token=***#f"),
        ("mail me@home.org", "mail me@home.org"),
    ],
)
def test_mask_secrets_hides_users_passwords_and_keys(text, masked):
    assert mask_secrets(text) == masked
