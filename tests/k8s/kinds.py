"""What Kubernetes, or the operator that an object is for, takes."""

from pathlib import Path

import jsonschema_rs
import kubernetes_validate
import yaml

KINDS = yaml.safe_load((Path(__file__).parent / "kinds.yaml").read_text())
VALIDATORS = {kind: jsonschema_rs.Draft7Validator(known["spec"]) for kind, known in KINDS.items()}
"""Of the kinds of operators: Kubernetes' own are validated by its schemas."""


def refusal(document):
    """Says why somebody would refuse an object; empty: nobody does."""
    kind = f"{document['apiVersion']}/{document['kind']}"
    if kind in VALIDATORS:
        if unknown := document.keys() - {"apiVersion", "kind", "metadata", "spec"}:
            return f"has {', '.join(sorted(unknown))}"
        wrong = next(VALIDATORS[kind].iter_errors(document.get("spec")), None)
        return f"spec/{'/'.join(map(str, wrong.instance_path))}: {wrong.message}" if wrong else ""
    try:
        kubernetes_validate.validate(document, "1.37", strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{'/'.join(map(str, error.path))}: {error.message}"
    return ""
