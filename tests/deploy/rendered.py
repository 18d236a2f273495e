#!/usr/bin/env python3
"""rendered.py MANIFESTS TOPOLOGY: every topology.toml in the rendered manifests is that file, unchanged by indentation."""

import sys
from pathlib import Path


def blocks(lines):
    """The text of each block scalar `topology.toml: |`."""
    inside, found = None, []
    for line in lines:
        if line.strip() == "topology.toml: |":
            inside = []
            found.append(inside)
        elif inside is not None and (line.startswith("    ") or not line.strip()):
            inside.append(line[4:])
        else:
            inside = None
    return ["\n".join(block).strip("\n") + "\n" for block in found]


def main():
    manifests, topology = (Path(name).read_text() for name in sys.argv[1:])
    found = blocks(manifests.splitlines())
    if len(found) < 2:
        sys.exit(f"rendered.py: {len(found)} copies of topology.toml in {sys.argv[1]}, expected those of run and apply")
    if any(block != topology.strip("\n") + "\n" for block in found):
        sys.exit(f"rendered.py: a rendered topology.toml differs from {sys.argv[2]}")


if __name__ == "__main__":
    main()
