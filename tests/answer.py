"""An HTTP response, as tests look at it."""

import json
from dataclasses import dataclass
from typing import Any


@dataclass
class Answer:
    """An HTTP response, read to its end."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def details(self) -> dict[str, Any]:
        """The details of a status, by the last part of their type."""
        return {detail["@type"].rpartition(".")[2]: detail for detail in self.json["details"]}

    @property
    def reason(self) -> str:
        return str(self.details["ErrorInfo"]["reason"])
