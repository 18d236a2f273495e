#!/usr/bin/env python3
"""metrics.py FILE...: every metric that rules and dashboards name is one that src registers, and what they select by exists.

Also every alert has its section in docs/runbook.md, and no section is without an alert.
"""

import re
import sys
from pathlib import Path

# Series of a histogram.
SUFFIXES = ("_bucket", "_sum", "_count")


def registered():
    """The names that the collectors of src have; those that are put together from a prefix are put together here."""
    names = set()
    for source in Path("src").rglob("*.rs"):
        # Words of comments prove nothing.
        text = re.sub(r"^\s*//.*$", "", source.read_text(), flags=re.M)
        literals = set(re.findall(r'"([a-z][a-z0-9_]*)"', text))
        names |= {name for name in literals if name.startswith("accrue_")}
        for prefix in re.findall(r'format!\("(accrue_[a-z_]*)\{name\}"', text):
            names |= {prefix + rest for rest in literals}
        if 'format!("accrue_{kind}_{what}")' in text:
            names |= {f"accrue_{kind}_{rest}" for kind in ("warehouse", "budget") for rest in literals}
    return names


def problems(text, names, source):
    for name in sorted(set(re.findall(r"\baccrue_[a-z0-9_]+", text))):
        base = next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), name)
        if name not in names and base not in names:
            yield f"{name} is registered nowhere in src"
    for selector in re.findall(r"\baccrue_[a-z0-9_]+\{([^}]*)\}", text):
        for label, values in re.findall(r'(\w+)=~?\\?"([^"\\]*)', selector):
            for word in [label, *values.split("|")]:
                if f'"{word}"' not in source:
                    yield f"{{{selector}}}: src has no {word!r}"


def main():
    names = registered()
    source = "".join(path.read_text() for path in Path("src").rglob("*.rs"))
    found = []
    for file in sys.argv[1:]:
        text = Path(file).read_text()
        found += [f"{file}: {problem}" for problem in problems(text, names, source)]
        if alerts := set(re.findall(r"- alert: (\w+)", text)):
            sections = set(re.findall(r"^## (Accrue\w+)", Path("docs/runbook.md").read_text(), flags=re.M))
            found += [f"{file}: docs/runbook.md has no section {alert}" for alert in sorted(alerts - sections)]
            found += [f"docs/runbook.md: {file} has no alert {alert}" for alert in sorted(sections - alerts)]
    sys.exit("\n".join(found) or 0)


if __name__ == "__main__":
    main()
