"""How much a corpus takes in: whatever a folder holds, building its index ends in bounded time and memory."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper bounds of one corpus; what exceeds one is skipped with a reason.

    Attributes:
        files: Documents of a folder.
        file_bytes: Bytes of one document.
        total_bytes: Bytes of all documents together.
        passages: Passages of all documents together.
        entries: Names looked at while walking the folder, documents or not.
        depth: Folders inside each other.
        skipped: Skipped paths that are kept with their reasons; the rest is only counted.
        text_bytes: Bytes of text that one HTML or PDF document may yield, its framing included.
        memory_bytes: Address space of a process that reads HTML or PDF.
        cpu_s: Processor time for one HTML or PDF document, in whole seconds.
        document_s: Wall time for one HTML or PDF document.
        kind_s: Wall time for all HTML documents, and as much again for all PDF documents.
    """

    files: int = 5_000
    file_bytes: int = 8 * 2**20
    total_bytes: int = 256 * 2**20
    passages: int = 200_000
    entries: int = 100_000
    depth: int = 32
    skipped: int = 1_000
    text_bytes: int = 8 * 2**20
    memory_bytes: int = 2**30
    cpu_s: int = 10
    document_s: float = 20
    kind_s: float = 120
