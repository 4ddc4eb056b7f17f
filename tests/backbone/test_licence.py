"""The licence of a backbone, from the README that came with it or from its package."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from orchestrator.backbone.licence import licence_of
from orchestrator.backbone.source import Source
from tests.hub_cache import download


def source(path: Path, name: str = "team/model") -> Source:
    return Source(name, path, "d", portable=True)


@pytest.mark.parametrize(
    ("readme", "licence"),
    [
        ("---\nlicense: apache-2.0\ntags: [text]\n---\n# Model\n", "apache-2.0"),
        ("---\r\nlicense: 'mit'\r\n---\r\n", "mit"),
        ("---\nlicense:\n- mit\n- cc-by-4.0\n---\n", "mit, cc-by-4.0"),
        ("---\nlicense: other\nlicense_name: team-community\nlicense_link: LICENSE\n---\n", "team-community"),
        ("---\nlicense: other\n---\n", "other"),
        ("---\nlanguage: en\n---\nlicense: mit\n", ""),
        ("---\nlicense: [mit\n---\n", ""),
        ("---\njust text\n---\n", ""),
        ("license: mit\n", ""),
    ],
)
def test_licence_is_the_one_that_the_readme_declares(tmp_path: Path, readme: str, licence: str) -> None:
    (tmp_path / "README.md").write_text(readme, encoding="utf-8", newline="")
    assert licence_of(source(tmp_path)) == licence


def test_licence_of_a_hub_backbone_comes_with_its_description(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()
    (repository / "config.json").write_text('{"model_type": "bert"}')
    (repository / "model.safetensors").write_bytes(b"")
    (repository / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n")
    assert licence_of(download(repository, tmp_path / "hf")) == "cc-by-4.0"


def test_licence_of_a_packaged_backbone_is_its_package_s(tmp_path: Path) -> None:
    about = metadata.metadata("numpy")
    assert licence_of(source(tmp_path, "package:numpy/model")) == about["License-Expression"]
    assert licence_of(source(tmp_path, "package:not_installed_here/model")) == ""
