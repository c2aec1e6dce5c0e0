"""An overlay of somebody's own, held against the schemas and rules of those here: `make test-k8s OVERLAY=FOLDER`."""

import sys

from meshwright.core.errors import SetupError
from tests.k8s.kinds import refusal
from tests.k8s.objects import rendered
from tests.k8s.rules import RULES


def problems(objects):
    """Yields what is wrong with the objects of an overlay, in words."""
    if not any(one["kind"] == "ConfigMap" and one["metadata"]["name"] == "settings" for one in objects):
        yield "no mesh is in it: name Meshwright's k8s/base, or an overlay, among its resources"
        return
    for one in objects:
        if why := refusal(one):
            yield f"{one['kind']} {one['metadata']['name']}: {why}"
    for rule in RULES:
        try:
            yield from rule(objects)
        except (KeyError, TypeError, ValueError, AttributeError) as error:  # what is refused above is no object for it
            yield f"{rule.__name__}: cannot be told, something that it asks for is missing: {error!r}"


def main(folder):
    """Prints what is wrong with an overlay; returns the exit code."""
    try:
        found = list(problems(rendered(folder)))
    except SetupError as error:
        sys.stderr.write(f"error: {error.message}\n")
        return 2
    for one in found:
        sys.stdout.write(f"{one}\n")
    sys.stderr.write(f"{folder}: {len(found)} problems\n" if found else f"{folder}: follows every rule\n")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
