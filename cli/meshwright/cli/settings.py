"""Settings of the command line."""

from pydantic import Field

from meshwright.core.settings import Settings


class CliSettings(Settings):
    """What the commands that talk to a mesh are told."""

    store_admin_url: str = Field(
        default="", description="The store's address for an admin, who loads functions; empty: store_url"
    )
    edge_ca: str = Field(
        default="", description="File of the authorities that an https edge's certificate may be of; empty: public ones"
    )
    edge: str = Field(default="http://127.0.0.1:8080", description="URL of the edge")
    api_key: str = Field(default="", description="What the edge is shown with every call: an API key, or a token")
