"""``peft-sweep --version``, and that everything which names a version names the same one."""

import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROGRAM = """
import sys
from orchestrator.cli import main
sys.argv = ["peft-sweep", "--version"]
try:
    main()
finally:
    heavy = {"torch", "transformers", "ray", "mlflow", "optuna", "pyarrow", "peft"} & set(sys.modules)
    print("imported:", sorted(heavy))
"""


def test_version_is_printed_without_heavy_imports() -> None:
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == [f"peft-sweep {metadata.version('peft-sweep')}", "imported: []"]


def test_version_is_the_newest_of_the_changelog() -> None:
    releases = re.findall(r"^## \[([\d.]+)\]", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert releases[0] == PROJECT["project"]["version"]
    assert releases == sorted(releases, key=lambda text: [int(part) for part in text.split(".")], reverse=True)


def test_every_package_of_the_wheel_is_marked_as_typed() -> None:
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert set(packages) == {"orchestrator", "methods", "search_spaces"}
    assert [package for package in packages if not (ROOT / package / "py.typed").is_file()] == []


def test_source_distribution_names_existing_paths() -> None:
    included = PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    assert [path for path in included if not (ROOT / path).exists()] == []
