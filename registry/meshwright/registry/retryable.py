"""How a tool says that a failure may pass."""


class Retryable(Exception):  # noqa: N818 - what it says of the failure, not that it is one
    """A tool's backend failed in a way that may pass: the call is tried again where its effect allows that.

    So is one that failed with a `MeshError` whose class is retryable.

    Args:
        message: What failed; told to the model where trying again did not help.
        retry_after_s: Seconds that the backend wants to be left alone.
    """

    def __init__(self, message: str = "", *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
