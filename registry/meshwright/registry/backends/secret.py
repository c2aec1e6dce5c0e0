"""Secrets of a tool host: read from its own environment or files, sent to named places only, shown to nobody."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    model_validator,
)

from meshwright.core.errors import EgressRefusedError, MeshError, SetupError
from meshwright.core.ids import Form
from meshwright.core.redaction import HELD, LEAST_CHARS, Mask, spellings
from meshwright.core.settings import secret_variable
from meshwright.registry.addresses import checked_place

MOST_CHARS = 8_192
VISIBLE = re.compile(r"[!-~]+( +[!-~]+)*")
PRINTABLE = Form(re.compile(r"[ -~]*"), "printable ASCII")
TRIMMED = Form(re.compile(r"[!-~]([ -~]*[!-~])?"), "printable ASCII without spaces at its ends")
PLAIN, REFERENCE = "(text)", "(secret)"
"""How errors of declarations tell the two kinds of a header apart."""


class SecretOptions(BaseModel):
    """Where a secret is, and where it may go."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    env: str = Field(default="", description="Environment variable that holds it")
    file: str = Field(default="", description="File that holds it, beside the declarations or absolute")
    places: list[str] = Field(min_length=1, max_length=32, description="host:port of the services that may get it")

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if bool(self.env) == bool(self.file):
            raise ValueError("either env or file")
        return self


class SecretReference(BaseModel):
    """A header or metadata value that is a secret."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    secret: str = Field(description="Name under `secrets`")
    prefix: Annotated[str, AfterValidator(PRINTABLE.validated)] = Field(
        default="", max_length=64, description='Before it: "Bearer "'
    )


HeaderValue = Annotated[
    Annotated[str, StringConstraints(max_length=1_024), AfterValidator(TRIMMED.validated), Tag(PLAIN)]
    | Annotated[SecretReference, Tag(REFERENCE)],
    Discriminator(lambda value: PLAIN if isinstance(value, str) else REFERENCE),
]
"""What stands for a header: text, or the name of a secret."""


class Secret:
    """A secret that is held; neither text nor repr show it.

    Args:
        name: As declarations refer to it.
        value: What is kept.
        places: `host:port` of the services that may get it.

    Raises:
        SetupError: It is too short or too long to be one, or holds what no header can.
    """

    def __init__(self, name: str, value: str, places: Iterable[str]) -> None:
        if not LEAST_CHARS <= len(value) <= MOST_CHARS or not VISIBLE.fullmatch(value):
            raise SetupError(f"holds no {LEAST_CHARS} to {MOST_CHARS} visible ASCII characters in one line")
        self.name = name
        try:
            self._places = frozenset(checked_place(place) for place in places)
        except EgressRefusedError as error:
            raise SetupError(f"places: {error.message}") from None
        self._value = value
        HELD.add(value)

    @classmethod
    def read(cls, name: str, options: SecretOptions, folder: Path) -> Self:
        """Reads a secret from where it is.

        Raises:
            SetupError: It is not there.
        """
        if options.env:
            value = secret_variable(options.env)
            if value is None:
                raise SetupError(f"env: the variable {options.env} is not set")
            return cls(name, value, options.places)
        try:
            with (folder / options.file).open(encoding="utf-8") as file:
                value = file.read(MOST_CHARS + 2).rstrip("\r\n")
        except (OSError, ValueError):
            raise SetupError(f"file: {options.file} cannot be read") from None
        return cls(name, value, options.places)

    def __repr__(self) -> str:
        return f"Secret({self.name!r})"

    def for_place(self, host: str, port: int, prefix: str = "") -> str:
        """Returns the value, with a prefix, for one of its places.

        Raises:
            SetupError: It may not go there.
        """
        if (host, port) not in self._places:
            raise SetupError(f"secret {self.name} may not be sent to {host}:{port}: name the place under `secrets`")
        return prefix + self._value

    def spellings(self) -> set[str]:
        """Returns how it may come back."""
        return spellings(self._value)


class Redaction:
    """Keeps secrets out of what a service sent back.

    Args:
        secrets: What must not be seen.
    """

    def __init__(self, secrets: Iterable[Secret] = ()) -> None:
        self._mask = Mask(one for secret in secrets for one in secret.spellings())

    def __repr__(self) -> str:
        return "Redaction()"

    def text(self, text: str) -> str:
        """Returns a text with a mask in place of every secret."""
        return self._mask.text(text)

    def error(self, error: MeshError) -> MeshError:
        """Returns an error with a mask in place of every secret."""
        return type(error)(
            self.text(error.message),
            metadata={name: self.text(one) for name, one in error.metadata.items()},
            fields={name: self.text(one) for name, one in error.fields.items()},
            retry_after_s=error.retry_after_s,
        )

    def json(self, value: Any) -> Any:
        """Returns JSON data with a mask in place of every secret, in names too."""
        if not self._mask:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(name): self.json(one) for name, one in value.items()}
        return [self.json(one) for one in value] if isinstance(value, list) else value
