"""The catalog of a mesh, page by page."""

from meshwright.cli.edge import Edge
from meshwright.core.errors import ResultTooLargeError
from meshwright.gen.registry.v1.tool_registry_service_pb2 import ListToolsRequest, Tool

PAGE_SIZE = 200
MOST_PAGES = 1_000


async def listed_tools(mesh: Edge, prefix: str = "", *, all_versions: bool = False) -> list[Tool]:
    """Lists the tools whose names begin so, by name: the newest version of each, or all, oldest first.

    Raises:
        ResultTooLargeError: There are more pages than anybody reads.
    """
    found: list[Tool] = []
    request = ListToolsRequest(page_size=PAGE_SIZE, name_prefix=prefix, all_versions=all_versions)
    for _ in range(MOST_PAGES):
        page = await mesh.call(mesh.tools.ListTools, request)
        found += page.tools
        request.page_token = page.next_page_token
        if not request.page_token:
            return found
    raise ResultTooLargeError(f"the catalog does not end after {PAGE_SIZE * MOST_PAGES} tools: name the tools you mean")
