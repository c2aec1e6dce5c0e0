"""Services that look at texts, by HTTP: one JSON document there, one back."""

import json
from typing import Any

from meshwright.core.errors import ToolFailedError
from meshwright.registry.egress import Egress, Limits, Request, parsed

MAX_ANSWER = 2**20
OK = 200


class Remote:
    """A service at a URL that its user has chosen, in this network or another.

    Args:
        url: Where it takes documents.
        token: Sent as bearer; empty: none.

    Raises:
        EgressRefusedError: The URL is none.
    """

    def __init__(self, url: str, token: str = "") -> None:
        self._url = url
        self._secrets = {"authorization": f"Bearer {token}"} if token else {}
        self._egress = Egress([parsed(url).place], limits=Limits(body_bytes=MAX_ANSWER))

    async def post(self, document: Any, limit_s: float) -> Any:
        """Sends a document and reads the answer.

        Raises:
            MeshError: There is none within `limit_s`, or it is no JSON.
        """
        headers = {"content-type": "application/json", "accept": "application/json"}
        request = Request("POST", self._url, headers, self._secrets, json.dumps(document).encode())
        response = await self._egress.fetch(request, limit_s)
        if response.status != OK:
            raise ToolFailedError(f"{self._url} answers with status {response.status}")
        try:
            return json.loads(response.body)
        except (ValueError, RecursionError):
            raise ToolFailedError(f"{self._url} answers with what is no JSON") from None
