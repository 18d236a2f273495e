#!/usr/bin/env python3
"""Makes the Kubernetes schemas of the PyPI package kubernetes-validate fit for kubeconform, offline.

    schemas.py WHEEL VERSION FOLDER

Takes the strict schemas (unknown fields refused) of one Kubernetes version out of the wheel, and
points their references, which are addresses on a web site, at the file beside them.
"""

import json
import sys
import zipfile
from pathlib import Path


def local(node):
    """The same schema with references to the file beside it, and no address of its own."""
    match node:
        case dict():
            return {
                key: value.replace("/api/_definitions.json", "_definitions.json")
                if key == "$ref" and isinstance(value, str)
                else local(value)
                for key, value in node.items()
                if not (key == "$id" and isinstance(value, str))
            }
        case list():
            return [local(member) for member in node]
        case _:
            return node


def main():
    wheel, version, folder = sys.argv[1:]
    inside = f"kubernetes_validate/kubernetes-json-schema/v{version}-local-strict/"
    Path(folder).mkdir(parents=True)
    count = 0
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.startswith(inside) and name.endswith(".json"):
                schema = local(json.loads(archive.read(name)))
                (Path(folder) / name.removeprefix(inside)).write_text(json.dumps(schema))
                count += 1
    if count == 0:
        sys.exit(f"{wheel} has no schemas of Kubernetes {version}")


if __name__ == "__main__":
    main()
