"""Whatever the folder of a registered adapter holds, it predicts, or one line says which file cannot be used."""

from __future__ import annotations

import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import strategies as st
from safetensors.torch import save_file

from orchestrator.common.errors import SweepError
from orchestrator.tracking.bundle import ADAPTER, BUNDLE, CARRIED, TOKENIZER
from orchestrator.tracking.predictor import Predictor
from tests.inputs.generated import changed, ends_well, json_values, texts, tried
from tests.tracking.small import make

pytestmark = pytest.mark.filterwarnings("ignore")  # of libraries that read damaged files


@cache
def whole() -> tuple[tempfile.TemporaryDirectory[str], Path]:
    """A bundle, in a folder that is deleted at the end."""
    folder = tempfile.TemporaryDirectory(prefix="bundles-")
    return folder, make(Path(folder.name)).folder


def load(name: str, content: bytes | None) -> None:
    """Load the bundle with other content of a file, or without that file."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(shutil.copytree(whole()[1], Path(folder) / "bundle"))
        if content is None:
            (bundle / name).unlink()
        else:
            (bundle / name).write_bytes(content)

        def work() -> None:
            predictor = Predictor.load(bundle)
            inputs = [predictor.bundle.input_schema.example]
            assert predictor.predict(inputs).num_rows == 1

        ends_well(work)


JSON_FILES = (BUNDLE, f"{ADAPTER}/method.json", f"{ADAPTER}/adapter_config.json")
TOKENIZER_FILES = (f"{TOKENIZER}/tokenizer.json", f"{TOKENIZER}/tokenizer_config.json")
FILES = (*JSON_FILES, *TOKENIZER_FILES, f"{ADAPTER}/adapter_model.safetensors", CARRIED)


def check_json(parts: tuple[str, st.DataObject]) -> None:
    name, data = parts
    values: Any = json.loads((whole()[1] / name).read_text())
    load(name, json.dumps(data.draw(changed(values, json_values) | json_values)).encode("utf-8", "surrogatepass"))


def check_bytes(parts: tuple[str, int, int, bytes]) -> None:
    name, start, stop, junk = parts
    content = (whole()[1] / name).read_bytes()
    load(name, content[: start % len(content)] + junk + content[stop % len(content) :])


def check_tensors(parts: tuple[dict[str, list[int]], bool]) -> None:
    shapes, is_beside = parts
    with tempfile.NamedTemporaryFile() as file:
        save_file({name: torch.zeros(shape) for name, shape in shapes.items()}, file.name)
        load(f"{ADAPTER}/{'adapter' if is_beside else 'adapter_model'}.safetensors", Path(file.name).read_bytes())


@pytest.mark.parametrize("name", [name for name in FILES if name != CARRIED])
def test_bundle_without_a_file_is_one_line(name: str) -> None:
    load(name, None)


@pytest.mark.parametrize("metric", [" macro_f1", ""])
def test_bundle_with_a_metric_of_no_type_is_one_line(tmp_path: Path, metric: str) -> None:
    bundle = Path(shutil.copytree(whole()[1], tmp_path / "bundle"))
    values = json.loads((bundle / BUNDLE).read_text())
    (bundle / BUNDLE).write_text(json.dumps({**values, "metric": metric}))
    with pytest.raises(SweepError, match=rf"{BUNDLE} cannot be used: \w+: [^\n]+$"):
        Predictor.load(bundle)


places = st.integers(0, 10**6)
shapes = st.dictionaries(texts, st.lists(st.integers(0, 4), max_size=3), max_size=3)

test_bundle_json, test_bundle_json_many_times = tried(st.tuples(st.sampled_from(JSON_FILES), st.data()))(check_json)
test_bundle_bytes, test_bundle_bytes_many_times = tried(
    st.tuples(st.sampled_from(FILES), places, places, st.binary(max_size=4))
)(check_bytes)
test_bundle_of_foreign_tensors, test_bundle_of_foreign_tensors_many_times = tried(st.tuples(shapes, st.booleans()))(
    check_tensors
)
