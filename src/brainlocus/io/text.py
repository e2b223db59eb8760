"""Small text files, whole."""

import codecs
from pathlib import Path

from brainlocus.core.errors import FormatError

__all__ = ["read_lines"]


def read_lines(path: Path, *, what: str) -> list[str]:
    """Return the lines of a text file in UTF-8, with or without a byte order mark.

    Parameters
    ----------
    what
        What the file should be ("a list of images"), for the message.

    Raises
    ------
    FormatError
        Not a file, or not text in UTF-8.
    """
    if not path.is_file():
        raise FormatError(f"{path}: expected {what}, found {'a folder' if path.is_dir() else 'nothing'}.")
    try:
        return path.read_bytes().removeprefix(codecs.BOM_UTF8).decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise FormatError(
            f"{path}: expected {what}, text in UTF-8, but byte {error.start + 1} is no text. Is it another kind "
            "of file?"
        ) from None
