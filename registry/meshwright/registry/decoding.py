"""Bodies of HTTP answers, decompressed within a bound. Pure."""

import zlib

GZIP, ZLIB, RAW = 31, 15, -15
"""Window sizes as zlib takes them."""


class Decoder:
    """Gathers a body piece by piece; what a compression bomb holds is never unpacked beyond the limit.

    Args:
        encoding: The Content-Encoding header; empty: as it is.
        limit: Bytes of the decompressed body.
    """

    def __init__(self, encoding: str, limit: int) -> None:
        self._encoding = encoding.strip().lower()
        self._limit = limit
        self._unpacker: zlib._Decompress | None = None
        self._held = bytearray()

    def add(self, data: bytes) -> None:
        """Takes a piece as it was received.

        Raises:
            OverflowError: The body goes beyond the limit.
            ValueError: It is not compressed as it says.
        """
        if data:
            self._held += self._unpacked(data)
        if len(self._held) > self._limit:
            raise OverflowError("the body goes beyond its limit")

    def whole(self) -> bytes:
        """Returns the body.

        Raises:
            ValueError: It is not at its end.
        """
        if self._unpacker and not self._unpacker.eof:
            raise ValueError("its compression has no end")
        return bytes(self._held)

    def _unpacked(self, data: bytes) -> bytes:
        if self._encoding in ("", "identity"):
            return data
        if self._unpacker is None:
            self._unpacker = zlib.decompressobj(self._window(data))
        try:
            unpacked = self._unpacker.decompress(data, self._limit - len(self._held) + 1)
        except zlib.error:
            raise ValueError(f"it is no {self._encoding}") from None
        if self._unpacker.unused_data:
            raise ValueError("something follows its compressed end")
        return unpacked

    def _window(self, data: bytes) -> int:
        if self._encoding in ("gzip", "x-gzip"):
            return GZIP
        if self._encoding == "deflate":  # by the standard with zlib's frame, by habit often without
            return ZLIB if data[0] & 0x0F == zlib.DEFLATED else RAW
        raise ValueError(f"the encoding {self._encoding:.40} is not read")
