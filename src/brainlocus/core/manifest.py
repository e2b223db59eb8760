"""Where a result came from."""

from dataclasses import dataclass, field
from typing import Any

__all__ = ["InputFile", "Manifest"]


@dataclass(frozen=True, slots=True)
class InputFile:
    """One input as it was read."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything needed to make a result again, and what happened while it was made."""

    step: str
    """Stage and verb: ``gwas run``."""
    version: str
    """brainlocus version."""
    parameters: dict[str, Any]
    """The validated settings, defaults included."""
    inputs: tuple[InputFile, ...]
    outputs: tuple[str, ...] = ()
    counts: dict[str, Any] = field(default_factory=dict)
    """What was kept and what was dropped, and why."""
    seconds: float = 0.0
    peak_memory_bytes: int = 0
    created: str = ""
    """UTC time, ISO 8601."""
    environment: dict[str, str] = field(default_factory=dict)
    """Python and the libraries that computed."""
    key: str = ""
    """SHA-256 over step, version, parameters and input digests: the same key means the same result."""
