"""Holds the licences of what images hold against a list: `python .ci/licences.py FILE.cdx.json ...`.

Reads CycloneDX documents as `make sbom` writes them; prints a table for people. 1: a licence is not on the list.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

ALLOWED = re.compile(
    r"(0BSD|Apache([ -]Software)?( License)?(,? (Version )?2\.0)?|Apache-2\.0"
    r"|BSD( License)?|[23]-Clause BSD License|BSD-[23]-Clause"
    r"|ISC( License.*)?|MIT( License)?|MIT-0|MPL-2\.0|Mozilla Public License 2\.0( \(MPL 2\.0\))?|PSF-2\.0"
    r"|Python Software Foundation License|LGPL-?(2\.1\+|v2.*|3.*)?|GNU Lesser General Public License.*|Zlib)",
    re.IGNORECASE,
)
"""Licences under which a package may be used unchanged beside ours; weak copyleft is, since nothing is modified."""
OURS = "meshwright"
KNOWN = {"protobuf": "BSD-3-Clause"}
"""Of packages that name theirs where the documents do not show it; read from their LICENSE."""
PREFIX = "License :: OSI Approved :: "


def licences_of(component: dict[str, Any]) -> list[str]:
    """Returns the licences of a package, as it names them."""
    found = [one.get("expression") or one.get("license", {}) for one in component.get("licenses", ())]
    named = [one if isinstance(one, str) else str(one.get("id") or one.get("name") or "") for one in found]
    return [one.removeprefix(PREFIX) for one in named] or [KNOWN[name] for name in KNOWN if name == component["name"]]


def is_allowed(named: list[str]) -> bool:
    """Whether a package may be used: each `AND` is on the list, and of an `OR` one is."""
    return bool(named) and all(
        any(all(ALLOWED.fullmatch(part.strip("() ")) for part in way.split(" AND ")) for way in one.split(" OR "))
        for one in named
    )


def main(names: list[str]) -> int:
    """Prints the table; returns the exit code."""
    components = {
        (one["name"], one["version"]): licences_of(one)
        for name in names
        for one in json.loads(Path(name).read_text()).get("components", ())
        if one["name"] != OURS
    }
    print("| package | version | licence |\n| --- | --- | --- |")
    for (name, version), named in sorted(components.items()):
        print(f"| {name} | {version} | {'; '.join(named)} |")
    wrong = [
        f"{name} {version}: {'; '.join(named) or 'none'}"
        for (name, version), named in components.items()
        if not is_allowed(named)
    ]
    for line in wrong:
        print(f"error: its licence is not on the list: {line}", file=sys.stderr)
    return 1 if wrong or not components else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
