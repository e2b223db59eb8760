"""What a converted UK Biobank dataset has once: descriptions, participants, label names, the status of every visit.

Runs at the same time may add to one dataset; rows and columns of other runs and programs stay.
"""

import fcntl
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from brainlocus.io.atomic import atomic_path
from brainlocus.io.nifti import write_dataset_description

__all__ = ["Conversion", "prepare_ukb_dataset", "write_ukb_tables"]

FIRST_LABELS = {
    10: "Left-Thalamus",
    11: "Left-Caudate",
    12: "Left-Putamen",
    13: "Left-Pallidum",
    16: "Brain-Stem",
    17: "Left-Hippocampus",
    18: "Left-Amygdala",
    26: "Left-Accumbens",
    49: "Right-Thalamus",
    50: "Right-Caudate",
    51: "Right-Putamen",
    52: "Right-Pallidum",
    53: "Right-Hippocampus",
    54: "Right-Amygdala",
    58: "Right-Accumbens",
}
"""FSL FIRST, Patenaude et al. (2011), NeuroImage 56:907: the labels of FreeSurfer."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """What became of a visit: a row of ``conversion.tsv``."""

    participant_id: str
    session_id: str
    status: Literal["done", "present", "failed"]
    """``present``: converted before from the same zips."""
    n_echoes: int
    n_channels: int
    """Coils written one by one; 0 without them."""
    sources: str
    message: str


def prepare_ukb_dataset(out: Path) -> None:
    """Write the descriptions of the dataset and of its derivatives where there are none; before any session."""
    with _alone(out):
        _write_descriptions(out)


def _write_descriptions(out: Path) -> None:
    source = [{"Name": "UK Biobank bulk data", "Version": "fields 20251, 26301"}]
    if not (out / "dataset_description.json").is_file():
        write_dataset_description(
            out,
            name="UK Biobank susceptibility-weighted MRI",
            dataset_type="raw",
            more={"SourceDatasets": [{"URL": "https://biobank.ndph.ox.ac.uk/ukb/"}]},
        )
    derived = out / "derivatives" / "ukb"
    if not (derived / "dataset_description.json").is_file():
        write_dataset_description(derived, name="Images and transforms that UK Biobank computed", generated_by=source)
    if not (derived / "desc-first_dseg.tsv").is_file():
        rows = "".join(f"{label}\t{name}\n" for label, name in FIRST_LABELS.items())
        _write_text(f"index\tname\n{rows}", derived / "desc-first_dseg.tsv")
    if not (out / "README").is_file():
        text = (
            "Susceptibility-weighted MRI of UK Biobank, converted from its bulk zips by brainlocus qsm convert-ukb.\n"
            "Sessions are imaging visits: ses-2 the first, ses-3 the repeat. Sidecar keys listed in ProtocolDefaults\n"
            "are those of the published protocol, because the zip had none. The status of every visit is in\n"
            "derivatives/ukb/conversion.tsv.\n"
        )
        _write_text(text, out / "README")


def write_ukb_tables(out: Path, rows: Sequence[Conversion]) -> None:
    """Write ``participants.tsv`` and the status of every visit; rows and columns of other runs and programs stay."""
    columns = ["participant_id", "session_id", "status", "n_echoes", "n_channels", "sources", "message"]
    cells = [[str(getattr(row, name)) for name in columns] for row in rows]
    with _alone(out):
        if any(row.n_channels for row in rows):
            _add_lines(out / ".bidsignore", ["*_coil-*_MEGRE.*"])
        ids = [path.name for path in sorted(out.glob("sub-*")) if path.is_dir()]
        _merge_table(out / "participants.tsv", ["participant_id"], [[name] for name in ids], keys=1, replace=False)
        _merge_table(out / "derivatives" / "ukb" / "conversion.tsv", columns, cells, keys=2, replace=True)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Keep other runs that add to the same dataset from writing its tables meanwhile, where the disk knows locks."""
    handle = os.open(out, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _write_text(text: str, path: Path) -> None:
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _add_lines(path: Path, lines: Iterable[str]) -> None:
    present = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    _write_text("\n".join([*present, *(line for line in lines if line not in present)]) + "\n", path)


def _merge_table(path: Path, columns: list[str], rows: list[list[str]], *, keys: int, replace: bool) -> None:
    """Add rows to a TSV file, or replace those with the same first `keys` columns; other columns stay."""
    known = list(_read_rows(path))
    header = known[0] if known else columns
    header = [*header, *(name for name in columns if name not in header)]
    table = {tuple(row[:keys]): row + ["n/a"] * (len(header) - len(row)) for row in known[1:]}
    for row in rows:
        if replace or tuple(row[:keys]) not in table:
            by_name = dict(zip(columns, row, strict=True))
            table[tuple(row[:keys])] = [by_name.get(name) or "n/a" for name in header]
    lines = ["\t".join(row) for row in [header, *(table[key] for key in sorted(table))]]
    _write_text("\n".join(lines) + "\n", path)


def _read_rows(path: Path) -> Iterator[list[str]]:
    if path.is_file():
        yield from (line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
