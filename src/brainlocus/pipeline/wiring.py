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


def _atlas(w: Wiring) -> Wired | None:
    if "images" not in w.inputs:
        return None
    return {"images": w.inputs["images"], "mask": w.inputs.get("mask")}


def _idp(w: Wiring) -> Wired | None:
    scales = w.settings["atlas"]["scales"]
    folder = w.output("atlas")
    if folder is None:
        return None
    return {"images": w.inputs["images"], "atlas": tuple(folder / f"C{n}" / "labels.nii.gz" for n in scales)}


def _join(w: Wiring) -> Wired | None:
    traits = w.output("idp") or w.inputs.get("traits")
    if traits is None:
        return None
    people = w.inputs.get("participants")
    return {"tables": (traits,) if people is None else (traits, people)}


STUDY_STEPS: tuple[StudyStep, ...] = (
    StudyStep("atlas", "atlas fit", "atlas", "[inputs] images", _atlas),
    StudyStep("idp", "idp extract", "idps.parquet", "the atlas step", _idp),
    StudyStep("join", "cohort join", "cohort.parquet", "images or [inputs] traits", _join),
)
