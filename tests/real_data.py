"""Real data for tests: found below ``BRAINLOCUS_DATA``, else the test is skipped with the reason."""

import os
from pathlib import Path

import numpy as np
import pytest


def real_data(name: str) -> Path:
    """Return a file below BRAINLOCUS_DATA or skip the test."""
    root = os.environ.get("BRAINLOCUS_DATA", "")
    path = Path(root) / name
    if not root or not path.exists():
        pytest.skip(f"real data: set BRAINLOCUS_DATA to a folder that has {name}")
    return path


def abide():
    """ABIDE-IMPAC as structural.md 4.5 uses it: QC 1-2, sites of 5 people or more, 201 features that vary."""
    import pandas as pd

    table = pd.read_csv(real_data("structural/tabular/abide_impac_freesurfer.csv"))
    table = table[table["anatomy_qc"].isin([1, 2])]
    counts = table["site"].value_counts()
    table = table[table["site"].isin(counts[counts >= 5].index)].reset_index(drop=True)
    names = [c for c in table.columns[6:] if table[c].nunique() > 1]
    # Two counts of lesions that are 0 in nearly everyone do not vary within most sites.
    names = [c for c in names if c not in ("5th-Ventricle", "non-WM-hypointensities")]
    return table, names


def abide_nuisance(table) -> np.ndarray:
    """age^1..3, sex, ASD."""
    age = table["age"].to_numpy(dtype=float)
    centred = age - age.mean()
    return np.column_stack([centred, centred**2, centred**3, table["sex"] == "M", table["asd"]]).astype(float)
