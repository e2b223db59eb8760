"""``associate reliability``: how well repeated sessions agree, measure by measure."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
from jaxtyping import Float64
from pydantic import Field

from brainlocus.cohort.associate import measure_reliability, reliability_results
from brainlocus.core import PhenotypeTable, SchemaError
from brainlocus.io import read_visits, write_results
from brainlocus.pipeline.config import CommaList, InputPath, OutputPath, Positional, StepConfig
from brainlocus.pipeline.figures.reliability import draw_bland_altman, draw_icc, draw_sessions
from brainlocus.pipeline.people import choose_traits, report_folder
from brainlocus.pipeline.step import Context, Step, StepResult

__all__ = ["ASSOCIATE_RELIABILITY", "AssociateReliabilityConfig"]

_MOST_PANELS = 16


class AssociateReliabilityConfig(StepConfig):
    """Settings of ``associate reliability``."""

    table: Annotated[InputPath, Positional()] = Field(description="Table with a row for every participant and session")
    session: str = Field("session_id", description="Column of the sessions")
    sessions: CommaList = Field((), description="Sessions to compare, in order; all of the table, sorted, by default")
    traits: CommaList = Field((), description="Measures, or patterns such as 'QSM_*'; all numeric columns by default")
    bootstrap: int = Field(2000, ge=0, description="Draws of people for the bootstrap intervals; 0 for none")
    confidence: float = Field(0.95, gt=0, lt=1, description="Of all intervals")
    min_people: int = Field(3, ge=2, description="Measures with fewer people who have every session get a status")
    report: OutputPath | None = Field(None, description="Folder for the figures")


def _in_order(found: list[str]) -> list[str]:
    """Return session labels sorted, numbers in them by value."""
    return sorted(found, key=lambda label: (int("".join(c for c in label if c.isdigit()) or 0), label))


def _cube(
    table: PhenotypeTable, names: list[str], sessions: list[str]
) -> tuple[Float64[np.ndarray, "people sessions measures"], int]:
    """Return values by person, session and measure (NaN without a visit), and how many people lack a session."""
    people, rows = np.unique(table.column("participant_id").values, return_inverse=True)
    at = {label: k for k, label in enumerate(sessions)}
    columns = np.array([at.get(str(label), -1) for label in table.column("session_id").values])
    values = np.full((people.size, len(sessions), len(names)), np.nan)
    used = columns >= 0
    values[rows[used], columns[used]] = table.matrix(names)[used]
    visits = np.bincount(rows[used], minlength=people.size)
    seen = visits > 0
    return values[seen], int((visits[seen] < len(sessions)).sum())


def associate_reliability(config: AssociateReliabilityConfig, out: Path, context: Context) -> StepResult:
    """Measure the reliability of every column."""
    table = read_visits(config.table, session=config.session)
    names = choose_traits(table, config.traits, besides={"participant_id", "session_id"})
    known = set(table.column("session_id").values.tolist())
    absent = [label for label in config.sessions if label not in known]
    if absent:
        raise SchemaError(
            f"--sessions: {', '.join(absent)} not in {config.session}, which has {_in_order(list(known))}."
        )
    sessions = list(config.sessions) or _in_order(list(known))
    if len(sessions) < 2:
        raise SchemaError(f"{config.table}: expected two sessions or more in {config.session!r}, found {sessions}.")
    values, lacking = _cube(table, names, sessions)
    found = measure_reliability(
        values,
        n_bootstrap=config.bootstrap,
        confidence=config.confidence,
        min_people=config.min_people,
        rng=context.rng(0),
    )
    units = [table.column(name).unit for name in names]
    results = reliability_results(found, measures=names, units=units, sessions=sessions)
    write_results(results, out)
    failed = int((results["status"] != "ok").sum())
    with report_folder(config.report) as folder:
        if folder is not None and failed < len(results):
            shown = np.flatnonzero(results["status"] == "ok")
            draw_icc(results, folder / "icc.png")
            some = shown[:_MOST_PANELS]
            first, last = values[:, 0, some], values[:, -1, some]
            draw_sessions(first, last, results.take(some), folder / "sessions.png")
            draw_bland_altman(first, last, results.take(some), folder / "bland_altman.png")
    counts: dict[str, Any] = {
        "participants": values.shape[0],
        "participants_lacking_a_session": lacking,
        "sessions": sessions,
        "measures": len(names),
        "without_result": {str(n): str(s) for n, s in zip(names, results["status"], strict=True) if s != "ok"},
    }
    known_icc = results["icc_2_1"][np.isfinite(results["icc_2_1"])]
    median = f"median ICC(2,1) {np.median(known_icc):.2f}" if known_icc.size else "no measure has a result"
    people = f"{values.shape[0]} people ({lacking} lack a session)"
    summary = f"{people}, {len(sessions)} sessions, {len(names)} measures: {median}"
    return StepResult(counts, n_failed=failed, summary=(summary,))


ASSOCIATE_RELIABILITY = Step(
    "associate reliability",
    "Reliability of measures over repeated sessions.",
    AssociateReliabilityConfig,
    associate_reliability,
)
