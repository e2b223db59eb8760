"""SHA-256 of inputs, files and folders alike."""

import hashlib
import json
from functools import lru_cache
from pathlib import Path

from brainlocus.core.errors import FormatError
from brainlocus.core.manifest import InputFile

__all__ = ["digest_files", "digest_input", "require_path"]

_CHUNK = 1 << 20
_ZARR_HEADERS = (".zarray", ".zgroup")
"""Shape, type and fill value of zarr arrays of version 2; without them their chunks mean nothing."""


def require_path(path: Path, *, what: str) -> None:
    """Check that an input exists.

    Raises
    ------
    FormatError
        It does not; the message has what was looked for and where.
    """
    if not path.exists():
        where = "" if path.is_absolute() else f" (from {Path.cwd()})"
        raise FormatError(f"{what}: expected a file or folder at {path}{where}, found nothing. Check the path.")


@lru_cache(maxsize=65_536)
def _digest_file(path: Path, size: int, modified_ns: int) -> str:  # noqa: ARG001 - part of the cache key
    digest = hashlib.sha256()
    if path.suffix == ".json":
        return hashlib.sha256(_without_times(path.read_bytes())).hexdigest()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _without_times(content: bytes) -> bytes:
    """Return a JSON file without its top-level ``run``, where ours keep time and memory; other content as it is.

    A result that took longer this time is the same input to the next step.
    """
    try:
        parsed = json.loads(content)
    except ValueError:
        return content
    if not isinstance(parsed, dict) or "run" not in parsed:
        return content
    del parsed["run"]
    return json.dumps(parsed, sort_keys=True).encode()


def digest_files(path: Path, files: list[Path]) -> InputFile:
    """Return one entry for an input made of several files.

    Parameters
    ----------
    path
        The name of the input as the user gave it.
    files
        Everything it consists of. A single file has its own SHA-256; several have the SHA-256 over the sorted
        lines "name, SHA-256", so that renaming or changing one changes the digest.
    """
    for file in files:
        if not file.is_file():
            raise FormatError(
                f"Expected a file at {file}, which goes together with {path.name}; found nothing. Copy it there too."
            )
    sizes = {file: file.stat() for file in files}
    digests = {file: _digest_file(file, s.st_size, s.st_mtime_ns) for file, s in sizes.items()}
    total = sum(s.st_size for s in sizes.values())
    if files == [path]:
        return InputFile(str(path), total, digests[path])
    root = path if path.is_dir() else path.parent
    # Without sizes: the digits of a time in a JSON file would change the digest of its folder.
    lines = sorted(f"{file.relative_to(root).as_posix()}\t{digests[file]}" for file in files)
    return InputFile(str(path), total, hashlib.sha256("\n".join(lines).encode()).hexdigest())


def digest_input(path: Path) -> InputFile:
    """Return the digest of a file, or of every file below a folder (hidden ones left out, but those of zarr)."""
    if path.is_dir():
        files = sorted(f for f in path.rglob("*") if f.is_file() and (f.name[0] != "." or f.name in _ZARR_HEADERS))
        return digest_files(path, files)
    return digest_files(path, [path])
