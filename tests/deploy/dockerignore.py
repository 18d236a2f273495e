#!/usr/bin/env python3
"""dockerignore.py [DOCKERIGNORE]: every file that the build reads reaches Docker, as .dockerignore leaves it.

Those are what Cargo.toml names, or Cargo finds by its name (build.rs), and what `include_str!` and `include_bytes!` read.
"""

import re
import sys
import tomllib
from pathlib import Path


def rules(text):
    """(pattern, excluded) in their order; the last that matches a path decides."""
    for line in text.splitlines():
        line = line.strip()
        if line and not line.startswith("#"):
            yield pattern(line.removeprefix("!").strip().strip("/")), not line.startswith("!")


def pattern(glob):
    """Docker's globs: `*` and `?` stop at a slash, `**` does not. A pattern that matches a folder matches what is in it."""
    parts = re.split(r"(\*\*/?|\*|\?)", glob)
    words = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(words.get(part) or re.escape(part) for part in parts) + "(?:/.*)?")


def excluded(path, rules):
    verdict = False
    for glob, excludes in rules:
        if glob.fullmatch(path):
            verdict = excludes
    return verdict


def of_cargo():
    cargo = tomllib.loads(Path("Cargo.toml").read_text())
    yield "Cargo.toml"
    yield "Cargo.lock"
    package = cargo["package"]
    build = package.get("build", "build.rs")
    if "build" in package or Path(build).exists():
        yield build
    yield from (package[key] for key in ("readme", "license-file") if isinstance(package.get(key), str))
    # Cargo reads no manifest one of whose targets is missing, whichever is built.
    yield cargo.get("lib", {}).get("path", "src/lib.rs")
    for kind, folder in (("bin", "src/bin"), ("bench", "benches"), ("test", "tests"), ("example", "examples")):
        for target in cargo.get(kind, []):
            short = f"{folder}/{target['name']}.rs"
            yield target.get("path") or (short if Path(short).exists() else f"{folder}/{target['name']}/main.rs")


def of_includes():
    for source in sorted(Path("src").rglob("*.rs")):
        for concat, name in re.findall(r'include_(?:str|bytes)!\(\s*(concat!\(\s*)?"([^"]+)"', source.read_text()):
            path = (source.parent / name).resolve().relative_to(Path.cwd())
            # `concat!("folder/", ...)`: any file of the folder may be meant.
            yield from map(str, sorted(path.iterdir())) if concat else [str(path)]


def main():
    ignore = list(rules(Path(sys.argv[1] if len(sys.argv) > 1 else ".dockerignore").read_text()))
    wanted = list(dict.fromkeys([*of_cargo(), *of_includes()]))
    problems = [f"{path} does not exist" for path in wanted if not Path(path).exists()]
    problems += [f".dockerignore excludes {path}, which the build reads" for path in wanted if excluded(path, ignore)]
    if problems:
        sys.exit("\n".join(problems))
    print(f"{len(wanted)} files")


if __name__ == "__main__":
    main()
