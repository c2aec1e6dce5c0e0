"""Settings of the command line."""

from pydantic import Field

from meshwright.core.settings import Settings


class CliSettings(Settings):
    """What the commands that talk to a mesh are told."""

    edge: str = Field(default="http://127.0.0.1:8080", description="URL of the edge")
    api_key: str = Field(default="", description="What the edge is shown with every call: an API key, or a token")
