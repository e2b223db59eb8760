"""Everything brainlocus raises on bad input.

::

    BrainlocusError
    ├── FormatError        a file does not follow its specification (path, line or byte, found, expected)
    ├── AlignmentError     two inputs disagree on samples, alleles, build, grid or unit
    ├── SchemaError        a table lacks, duplicates or mistypes a column
    ├── ResourceError      the plan needs more memory or disk than it was given (says how much)
    └── MissingExtraError  an optional dependency is absent (says which extra to install)

``ValueError`` and ``TypeError`` are for wrong arguments. The command line turns all of these into one
message and exit code 2. A message states what was expected, what was found, where, and what to do.
"""

from difflib import get_close_matches
from importlib import import_module
from types import ModuleType

__all__ = [
    "AlignmentError",
    "BrainlocusError",
    "FormatError",
    "MissingExtraError",
    "ResourceError",
    "SchemaError",
    "import_extra",
    "nearest",
]


class BrainlocusError(Exception):
    """Base of every error about input that brainlocus raises."""


class FormatError(BrainlocusError):
    """A file does not follow its specification."""


class AlignmentError(BrainlocusError):
    """Two inputs disagree on samples, alleles, genome build, grid or unit."""


class SchemaError(BrainlocusError):
    """A table lacks, duplicates or mistypes a column, or a configuration has an unknown key."""


class ResourceError(BrainlocusError):
    """The plan does not fit in the memory or disk it was given."""


class MissingExtraError(BrainlocusError):
    """An optional dependency is absent."""


def import_extra(module: str, *, extra: str) -> ModuleType:
    """Return an optional module, or say which extra brings it.

    Raises
    ------
    MissingExtraError
        The module is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"This needs the Python package {module.split('.')[0]!r}, which is not installed. "
            f"Install it with: pip install 'brainlocus[{extra}]'"
        ) from error


def nearest(name: str, known: "list[str] | tuple[str, ...]") -> str:
    """Return ``" Did you mean 'x'?"`` for the known name closest to `name`, or ``""`` when none is close."""
    matches = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean {matches[0]!r}?" if matches else ""
