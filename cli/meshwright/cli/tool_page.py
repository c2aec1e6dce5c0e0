"""Pages that tell people about tools, in Markdown; what others wrote stands in them as text. Pure."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from meshwright.cli.schema_rows import JsonSchema, rows
from meshwright.core.canonical import from_struct
from meshwright.core.facts import shortened
from meshwright.gen.registry.v1.tool_registry_service_pb2 import ApprovalRule, Effect, SchemaChange, Tool

EFFECTS = {
    "pure": "pure: it only reads, and may run again",
    "idempotent": "idempotent: it may be repeated with the same key",
    "non_idempotent": "non_idempotent: it is never run twice by itself",
}
APPROVALS = {
    "never": "never",
    "when_tainted": "once content that others wrote has entered the conversation",
    "always": "before every call",
}
SUMMARY_BYTES = 200
MICROS = 1_000_000
MARKS = re.compile(r"[\\`*_\[\]<>&|]")
ESCAPED = r"\\\g<0>"
BLOCKS = re.compile(r"^(?:[#+=~-]|\d+(?=[.)]))")
"""How a line begins that would be a heading, a list, a rule or a fence."""
CODE = re.compile(r"`([^`]*)`")


@dataclass(frozen=True, slots=True)
class ToolPage:
    """All versions of one tool.

    Attributes:
        name: Dotted name.
        versions: Oldest first, at least one.
        changes: What is new in a version against the one before it, by version; one that is missing was not compared.
    """

    name: str
    versions: Sequence[Tool]
    changes: Mapping[str, Sequence[SchemaChange]]

    @property
    def newest(self) -> Tool:
        """The last version."""
        return self.versions[-1]

    def markdown(self) -> str:
        """Writes the page."""
        return "\n\n".join([f"# {escaped(self.name)}", *self._overview(), *self._details()]) + "\n"

    def _overview(self) -> Iterator[str]:
        yield quoted(self.newest.description)
        columns = ("Version", "Aliases", "Deprecated")
        yield table(
            columns,
            (
                (tool.version, escaped(", ".join(sorted(tool.aliases))), escaped(deprecation(tool)))
                for tool in reversed(self.versions)
            ),
        )

    def _details(self) -> Iterator[str]:
        for index in range(len(self.versions) - 1, -1, -1):
            tool = self.versions[index]
            yield f"## {tool.version}"
            if tool.description != self.newest.description:
                yield quoted(tool.description)
            yield table(("", ""), ((what, escaped(said)) for what, said in promises(tool)))
            yield from schema_section("Arguments", from_struct(tool.input_schema, "input_schema"))
            yield from schema_section("Result", from_struct(tool.output_schema, "output_schema"))
            if index and tool.version in self.changes:
                yield f"### Changes since {self.versions[index - 1].version}"
                yield changes_list(self.changes[tool.version])


def index_page(pages: Sequence[ToolPage]) -> str:
    """Writes the page that lists all others."""
    if not pages:
        return "# Tools\n\nNo tools are registered.\n"
    listed = (
        (f"[{escaped(page.name)}]({page.name}.md)", page.newest.version, effect(page.newest), summary(page.newest))
        for page in pages
    )
    return f"# Tools\n\n{table(('Tool', 'Version', 'Effect', 'What it does'), listed)}\n"


def promises(tool: Tool) -> Iterator[tuple[str, str]]:
    """Says what a version promises beside its schemas; what does not apply is left out."""
    yield "Effect", EFFECTS.get(effect(tool), effect(tool))
    yield "Asks a person", APPROVALS.get(approval(tool), approval(tool))
    yield "Time for a call", f"{timeout_s(tool):g} s"
    if tool.cost_micros:
        yield "Cost of a call", f"US$ {tool.cost_micros / MICROS:.6f}".rstrip("0")
    said = {
        "Deprecated": deprecation(tool),
        "Scopes": ", ".join(tool.required_scopes),
        "Redacted in results": ", ".join(pointer or "(all of it)" for pointer in tool.redact),
        "Owner": tool.owner,
        "Digest": tool.digest,
    }
    yield from ((what, text) for what, text in said.items() if text)


def schema_section(title: str, schema: JsonSchema) -> Iterator[str]:
    """Writes a schema as a table."""
    yield f"### {title}"
    found = rows(schema) if schema else []
    if not found or (title == "Arguments" and not schema.get("properties")):
        yield "None." if title == "Arguments" else "Anything."
        return
    listed = (
        (
            code(row.place) if row.place else "(all of it)",
            escaped(row.kind),
            "yes" if row.is_required else "",
            rules_cell(row.rules),
            escaped(row.description),
        )
        for row in found
    )
    yield table((title.removesuffix("s"), "Type", "Required", "Rules", "Description"), listed)


def rules_cell(rules: Iterable[str]) -> str:
    """Writes rules with the values between backticks as code."""
    return "; ".join(
        "".join(code(part) if index % 2 else MARKS.sub(ESCAPED, part) for index, part in enumerate(CODE.split(rule)))
        for rule in (" ".join(rule.split()) for rule in rules)
    )


def changes_list(changes: Sequence[SchemaChange]) -> str:
    """Lists changes, those first that break callers."""
    if not changes:
        return "None that a schema shows."
    ordered = sorted(changes, key=lambda one: (not one.breaking, one.pointer, one.rule, one.message))
    return "\n".join(
        f"- {'**breaking** ' if one.breaking else ''}{code(one.pointer or '/')}: {escaped(one.message)}"
        for one in ordered
    )


def effect(tool: Tool) -> str:
    """Names a tool's effect."""
    return Effect.Name(tool.effect).removeprefix("EFFECT_").lower()


def approval(tool: Tool) -> str:
    """Names a tool's rule of approval."""
    return ApprovalRule.Name(tool.approval).removeprefix("APPROVAL_RULE_").lower()


def timeout_s(tool: Tool) -> float:
    """Returns the seconds of a call."""
    return tool.timeout.ToMilliseconds() / 1000


def deprecation(tool: Tool) -> str:
    """Says until when a version may be relied on; empty: it is not deprecated."""
    if not tool.HasField("sunset_time"):
        return ""
    until = f"not to be relied on after {tool.sunset_time.ToJsonString()}"
    return f"{until}: use {tool.replaced_by}" if tool.replaced_by else until


def summary(tool: Tool) -> str:
    """Returns the first line of a description."""
    return escaped(shortened(tool.description.strip().partition("\n")[0], SUMMARY_BYTES))


def quoted(text: str) -> str:
    """Writes paragraphs that others wrote: their words, none of their markup."""
    return "\n".join(BLOCKS.sub(unblocked, escaped(line)) for line in text.strip().split("\n"))


def unblocked(begin: re.Match[str]) -> str:
    """Takes its meaning from what begins a block: the mark itself, or the dot behind a number, is escaped."""
    return f"{begin[0]}\\" if begin[0].isdigit() else f"\\{begin[0]}"


def escaped(text: str) -> str:
    """Writes text so that Markdown, in a table too, shows it as it is."""
    return MARKS.sub(ESCAPED, " ".join(text.split()))


def code(text: str) -> str:
    """Writes text as code that may stand in a table."""
    line = " ".join(text.replace("`", "'").split()).replace("|", "\\|")
    return f"`{line}`"


def table(columns: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Writes a table of cells that are Markdown already."""
    head = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    return "\n".join([*head, *(f"| {' | '.join(line)} |" for line in lines)])
