"""Reading from the middle of BGZF files (bgzip, BCF) and of plain ones, by virtual offset.

A BGZF file is a row of gzip members of at most 64 KiB, each of which says how long it is. A virtual offset is the byte
at which a member begins times 65,536 plus the byte within its content; a plain file is taken in pieces of 64 KiB.

References
----------
SAM/BAM format specification, section 4.1: the BGZF compression format.
"""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO

from brainlocus.core.errors import FormatError

__all__ = ["BlockReader"]

_PIECE = 1 << 16
_GZIP = b"\x1f\x8b"


class BlockReader:
    """Bytes and lines of a BGZF or plain file from a virtual offset on; `tell` says where the next one begins.

    A context manager: the file is open within it.

    Raises
    ------
    FormatError
        Gzip that is not BGZF (it has no place to begin in the middle), or a truncated or damaged member.
    """

    def __init__(self, path: Path, start: int = 0) -> None:
        self._path = path
        self._stream: IO[bytes] = path.open("rb")
        self._compressed = self._stream.read(2) == _GZIP
        self._stream.seek(start >> 16)
        self._members = self._read_members()
        self._start = start
        self._at, self._data, self._used = start >> 16, b"", 0

    def __enter__(self) -> "BlockReader":
        try:
            self._advance()
        except FormatError:
            self._stream.close()
            raise
        self._used = self._start & 0xFFFF
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()

    def tell(self) -> int:
        """Return the virtual offset of the next byte."""
        if self._used == len(self._data):
            self._advance()
        return self._at << 16 | self._used

    def read(self, size: int) -> bytes:
        """Return the next bytes, fewer only at the end of the file."""
        parts, wanted = [], size
        while wanted > 0 and (self._used < len(self._data) or self._advance()):
            part = self._data[self._used : self._used + wanted]
            self._used += len(part)
            wanted -= len(part)
            parts.append(part)
        return b"".join(parts)

    def readline(self) -> bytes:
        """Return the next line with its end; nothing at the end of the file."""
        parts = []
        while self._used < len(self._data) or self._advance():
            end = self._data.find(b"\n", self._used) + 1
            part = self._data[self._used : end or None]
            self._used += len(part)
            parts.append(part)
            if end:
                break
        return b"".join(parts)

    def read_to(self, offset: int) -> bytes:
        """Return everything before a virtual offset."""
        parts = []
        while self.tell() < offset and self._used < len(self._data):
            end = offset & 0xFFFF if self._at == offset >> 16 else len(self._data)
            parts.append(self._data[self._used : end])
            self._used = end
        return b"".join(parts)

    def _advance(self) -> bool:
        """Go to the next member with content; False at the end of the file."""
        for at, data in self._members:
            self._at, self._data, self._used = at, data, 0
            if data:
                return True
        self._at, self._data, self._used = self._stream.tell(), b"", 0
        return False

    def _read_members(self) -> Iterator[tuple[int, bytes]]:
        at = self._stream.tell()
        while True:
            data = self._member(at) if self._compressed else self._stream.read(_PIECE)
            if data is None or (not self._compressed and not data):
                return
            yield at, data
            at = self._stream.tell()

    def _member(self, at: int) -> bytes | None:
        head = self._stream.read(12)
        if not head:
            return None
        if len(head) < 12 or head[:2] != _GZIP:
            raise self._damaged(at, "the file is truncated or damaged")
        extra = self._stream.read(struct.unpack("<H", head[10:])[0])
        size = _member_size(extra) if head[3] & 4 else None
        if size is None:
            raise FormatError(
                f"{self._path}: expected BGZF (written by bgzip), found plain gzip, which has no place to begin "
                f"in the middle. Compress it again: gunzip -c {self._path.name} | bgzip > new.vcf.gz"
            )
        wanted = size - 11 - len(extra)
        body = self._stream.read(max(wanted, 0))
        if len(body) != wanted or wanted < 8:
            raise self._damaged(at, "the file is truncated or damaged")
        try:
            data = zlib.decompress(body[:-8], wbits=-15)
        except zlib.error as error:
            raise self._damaged(at, str(error)) from error
        if struct.unpack("<II", body[-8:]) != (zlib.crc32(data), len(data)):
            raise self._damaged(at, "its checksum is another")
        return data

    def _damaged(self, at: int, why: str) -> FormatError:
        return FormatError(f"{self._path}: expected a whole BGZF block at byte {at + 1}: {why}.")


def _member_size(extra: bytes) -> int | None:
    """Return the size of a member less one, from its subfield BC."""
    at = 0
    while at + 4 <= len(extra):
        length = struct.unpack_from("<H", extra, at + 2)[0]
        if extra[at : at + 2] == b"BC" and length == 2 and at + 6 <= len(extra):
            found: int = struct.unpack_from("<H", extra, at + 4)[0]
            return found
        at += 4 + length
    return None
