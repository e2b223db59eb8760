"""Tables of image-derived phenotypes in a folder: what `cohort prepare` takes, its confounds, and every row."""

import json
from pathlib import Path

from brainlocus.core import PhenotypeTable, ResultTable
from brainlocus.images.idp import CohortIdps, assemble_idps
from brainlocus.io import atomic_path, write_results, write_table

__all__ = ["IDP_FILES", "remove_idps", "write_idps"]

IDP_FILES = ("idps.tsv", "idps_confounds.tsv", "idps_adjusted.tsv", "idps_regions.tsv")
"""What `write_idps` always writes, each of the first three with a ``.json`` of units and descriptions beside it."""

_SESSIONS = "idps_sessions.tsv"
_MEANING = {
    "median": "Median over the eroded region",
    "difference": "Mean of white matter hyperintensities less the median of normal-appearing white matter",
    "volume": "Volume of the whole region",
    "volumeadjusted": "The measure with its regression on the region's volume taken out, mean kept",
    "gradientadjusted": "The measure with its regression on the region's fieldgradient taken out, mean kept",
}
_MEASURES = {
    "QSM": "Magnetic susceptibility, referenced",
    "T2star": "Apparent transverse relaxation time T2*",
    "fieldgradient": "Rise of R2* that the macroscopic field gradient predicts: the confound of T2*",
}


def write_idps(rows: ResultTable, folder: Path) -> CohortIdps:
    """Write the tables of a cohort and return them.

    ``idps.tsv`` has one row a person (the first session) and one column a phenotype; ``idps_confounds.tsv`` and
    ``idps_adjusted.tsv`` the same rows; ``idps_regions.tsv`` every row of every scan with all its statistics. Where
    people have several sessions, ``idps_sessions.tsv`` has one row a scan, for `associate reliability`.

    Parameters
    ----------
    rows
        What `brainlocus.images.idp.subject_idps` returns, of all scans together.
    """
    cohort = assemble_idps(rows)
    remove_idps(folder, _SESSIONS)
    for table, name in zip((cohort.phenotypes, cohort.confounds, cohort.adjusted), IDP_FILES, strict=False):
        _write(table, folder / name)
    write_results(rows, folder / IDP_FILES[3])
    if len(cohort.participant_id) > len(cohort.phenotypes.samples):
        _write(cohort.every_scan, folder / _SESSIONS, cohort.participant_id)
    return cohort


def remove_idps(folder: Path, *names: str) -> None:
    """Remove tables that an earlier run wrote and that this one has no rows for; by default all."""
    for name in names or (*IDP_FILES, _SESSIONS):
        (folder / name).unlink(missing_ok=True)
        (folder / name).with_suffix(".json").unlink(missing_ok=True)


def _write(table: PhenotypeTable, path: Path, participant_id: tuple[str, ...] | None = None) -> None:
    write_table(table, path, participant_id=participant_id)
    notes = {column.name: _note(column.name, column.unit) for column in table.columns}
    with atomic_path(path.with_suffix(".json")) as partial:
        partial.write_text(json.dumps(notes, indent=1) + "\n", encoding="utf-8")


def _note(name: str, unit: str) -> dict[str, str]:
    """Return what a BIDS sidecar says of a column; its unit is what `read_table` gives back."""
    if name == "session_id":
        return {"Description": "Scanning session"}
    measure, what = name.split("_", 1)[0], _MEANING[name.rsplit("_", 1)[1]]
    text = f"{what}. {_MEASURES[measure]}." if measure in _MEASURES else f"{what}."
    if measure == "QSM" and "substantia_nigra" in name:
        text += " Only voxels from 0 up."
    return {"Description": text, "Units": unit}
