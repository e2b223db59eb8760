"""Readers and writers: bytes to core types and back, one module per format."""

from brainlocus.io.atomic import atomic_path, partial_name, replace_path
from brainlocus.io.digest import digest_files, digest_input, require_path
from brainlocus.io.tables import read_arrow, read_results, read_table, write_results, write_table

__all__ = [
    "atomic_path",
    "digest_files",
    "digest_input",
    "partial_name",
    "read_arrow",
    "read_results",
    "read_table",
    "replace_path",
    "require_path",
    "write_results",
    "write_table",
]
