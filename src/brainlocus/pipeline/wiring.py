"""Which step of a study reads what: the arrows of the house, in order.

Each entry says which command runs, where it writes below the study's folder, and how its inputs follow from the
study's inputs and from the steps before it. `Wiring.output` gives None for a step that does not run, and a step whose
inputs are not all there does not run either.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["STUDY_STEPS", "StudyStep", "Wiring"]

Wired = dict[str, Any]


@dataclass(slots=True)
class Wiring:
    """What is known while a study is being planned."""

    inputs: dict[str, Path]
    name: str
    description: str
    genome_build: str
    settings: dict[str, dict[str, Any]]
    root: Path
    active: set[str] = field(default_factory=set)
    """Steps that run."""

    def output(self, key: str, part: str = "") -> Path | None:
        """Return (a part of) the output of an earlier step, None when that step does not run."""
        if key not in self.active:
            return None
        path = self.root / next(s.out for s in STUDY_STEPS if s.key == key)
        return path / part if part else path

    def first(self, *candidates: Path | None) -> Path | None:
        """Return the first path that is there."""
        return next((c for c in candidates if c is not None), None)


@dataclass(frozen=True, slots=True)
class StudyStep:
    """One step of every study."""

    key: str
    """Its table in ``study.toml``."""
    step: str
    """Its command."""
    out: str
    """Where it writes, below the study's folder."""
    needs: str
    """In words, for the message when they are missing."""
    wire: Callable[[Wiring], Wired | None]
    defaults: dict[str, Any] = field(default_factory=dict)
    """Settings whose default in a study differs from the command's."""
    wired: frozenset[str] = frozenset()
    """Settings that the study itself gives, so that the file has no key for them."""


def _given(**paths: Any) -> Wired | None:
    """Return the inputs when all are there."""
    return None if any(value is None for value in paths.values()) else paths


STUDY_STEPS: tuple[StudyStep, ...] = ()
