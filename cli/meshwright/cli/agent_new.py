"""`meshwright agent new`: an agent as a project of its own, which passes its tests as it is."""

import importlib.metadata
import importlib.util
import keyword
import sys
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Annotated

import typer

from meshwright.cli.agent_manifests import manifests
from meshwright.cli.output import show
from meshwright.cli.tool_new import write
from meshwright.core.errors import InvalidRequestError
from meshwright.core.ids import AGENT_ID

LONGEST = 40
"""Characters of a name: then every line fits, and so does the name of the tool."""
TAKEN = frozenset({"agents", "k8s", "tests", *keyword.kwlist, *sys.stdlib_module_names})
"""Names that a package of the project must not have."""
PLACES = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "init.py": "$package/__init__.py",
    "agent.py": "$package/agent.py",
    "prompts.py": "$package/prompts.py",
    "tools.py": "$package/tools.py",
    "policy.py": "$package/policy.py",
    "evals.jsonl": "$package/evals.jsonl",
    "test_agent.py": "tests/test_agent.py",
    "Dockerfile": "Dockerfile",
    "dockerignore": ".dockerignore",
    "gitignore": ".gitignore",
    "workflow.yml": ".github/workflows/check.yml",
}
"""Where each template of the folder `project` goes; manifests go to `k8s`."""
VERSION = "1.0.0"
"""Of the project's image, until its author chooses another one."""


def new(
    name: Annotated[str, typer.Argument(help="The agent's name: price-desk")],
    folder: Annotated[
        Path | None, typer.Option(help="Where the project goes  [default: a folder of that name]")
    ] = None,
) -> None:
    """Writes a small agent with tests, evals, image and manifests; never writes over a file."""
    from meshwright.agents.library.bundle import BUNDLED  # brings all that agents are made of

    if not AGENT_ID.fullmatch(name) or len(name) > LONGEST or name.endswith("-"):
        forms = f"lower-case letters, digits and inner hyphens, at most {LONGEST} characters, as in price-desk"
        raise InvalidRequestError(f"{name!r} names no agent: write {forms}", fields={"name": forms})
    if name in BUNDLED:
        raise InvalidRequestError(
            f"an agent called {name} ships with Meshwright: give yours another name", fields={"name": "another name"}
        )
    place = folder or Path(name)
    texts = project(name)
    write({place / path: text for path, text in texts.items()})
    for path in texts:
        show(str(place / path))
    typer.echo(f"begin with {place / 'README.md'}", err=True)


def project(name: str) -> dict[str, str]:
    """Returns the files of a project: texts by relative path."""
    package = package_name(name)
    words = {
        "name": name,
        "package": package,
        "tool": f"{package}.count_words",
        "version": importlib.metadata.version("meshwright"),
    }
    templates = files("meshwright.cli") / "project"
    texts = {
        Template(path).substitute(words): Template((templates / f"{source}.tmpl").read_text()).substitute(words)
        for source, path in PLACES.items()
    }
    cluster = manifests(name, f"{package}.agent:agent", image=name, tag=VERSION)
    return texts | {f"k8s/{path}": text for path, text in cluster.items()}


def package_name(name: str) -> str:
    """Names the package of an agent; one that would hide another module is called `NAME_agent`."""
    package = name.replace("-", "_")
    is_taken = package in TAKEN or importlib.util.find_spec(package) is not None
    return f"{package}_agent" if is_taken else package
