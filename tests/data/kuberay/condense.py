"""Condense KubeRay's custom resource definition of a RayJob into ``rayjob.schema.json``, a JSON schema.

Usage: ``python tests/data/kuberay/condense.py ray.io_rayjobs.yaml``, with the file of that name from KubeRay's folder
``ray-operator/config/crd/bases``. Descriptions are left out, subschemas that occur several times are written once, and
keys that the definition does not name are refused, as ``kubectl apply`` does.
"""

import collections
import json
import sys
from pathlib import Path
from typing import Any

import yaml

VERSION = "v1"
TARGET = Path(__file__).with_name("rayjob.schema.json")


def condensed(schema: Any) -> Any:
    """Return a schema without descriptions and Kubernetes' own keywords, closed to unknown keys."""
    if isinstance(schema, list):
        return [condensed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    result = {
        key: {name: condensed(part) for name, part in value.items()} if key == "properties" else condensed(value)
        for key, value in schema.items()
        if not (key == "description" and isinstance(value, str)) and not key.startswith("x-kubernetes-")
    }
    if "properties" in result:
        result.setdefault("additionalProperties", False)
    return result


def is_schema(part: Any) -> bool:
    """Return whether this is a schema, and not a mapping of property names to schemas."""
    return isinstance(part, dict) and isinstance(part.get("type"), str)


def shared(schema: Any) -> dict[str, Any]:
    """Return a schema whose large repeated parts are definitions."""
    counts: collections.Counter[str] = collections.Counter()

    def count(part: Any) -> None:
        if is_schema(part):
            counts[json.dumps(part, sort_keys=True)] += 1
        for child in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
            count(child)

    count(schema)
    texts = [text for text, times in counts.items() if times > 1 and len(text) > 200]
    names = {text: f"part{number}" for number, text in enumerate(texts)}

    def refer(part: Any, top: bool = False) -> Any:
        if isinstance(part, list):
            return [refer(child) for child in part]
        if not isinstance(part, dict):
            return part
        name = names.get(json.dumps(part, sort_keys=True)) if is_schema(part) else None
        if name and not top:
            return {"$ref": f"#/$defs/{name}"}
        return {key: refer(child) for key, child in part.items()}

    body = refer(schema)
    definitions = {name: refer(json.loads(text), top=True) for text, name in names.items()}
    return body | {"$defs": definitions}


def main() -> None:
    """Write the schema beside this file."""
    definition = yaml.safe_load(Path(sys.argv[1]).read_text())
    (version,) = [entry for entry in definition["spec"]["versions"] if entry["name"] == VERSION]
    schema = condensed(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    TARGET.write_text(json.dumps(shared(schema), separators=(",", ":"), sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
