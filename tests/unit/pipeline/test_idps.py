"""The tables that `write_idps` leaves are those that the next commands take."""

import json

import numpy as np
import pytest

from brainlocus.cli.main import main
from brainlocus.core import Column, Mask, Parcellation, PhenotypeTable, ResultTable, SampleIndex, Volume, concat_results
from brainlocus.images.idp import REGIONS, subject_idps
from brainlocus.io import read_results, read_table, read_visits, write_table
from brainlocus.pipeline.idps import IDP_FILES, write_idps

AFFINE = np.diag([1.0, 1.0, 3.0, 1.0])
N = 60


def code_of(*arguments) -> int:
    try:
        main([str(a) for a in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def cohort_rows(sessions=("",)) -> tuple[ResultTable, np.ndarray]:
    """Return the rows of sixty people whose putamen grows richer in iron with age, and their ages."""
    rng = np.random.default_rng(3)
    labels = np.zeros((8, 16 * 5, 6), dtype=np.int16)
    for k in range(16):
        labels[1:7, 5 * k : 5 * k + 5] = k + 1
    parcels = Parcellation(labels, AFFINE, dict(enumerate(REGIONS, 1)))
    whole = np.ones(labels.shape, dtype=bool)
    lesion, tissue = whole.copy(), whole.copy()
    lesion[3:] = False
    age = rng.uniform(45, 80, N)
    rows = []
    for k in range(N):
        chi = rng.normal(0.02, 0.02, labels.shape).astype(np.float32)
        chi += np.where(np.isin(labels, (11, 12)), 0.001 * (age[k] - 60), 0).astype(np.float32)
        for session in sessions:
            scan = chi + rng.normal(0, 0.002, labels.shape).astype(np.float32)
            maps = {
                "QSM": Volume(scan, AFFINE, "susceptibility", "ppm"),
                "T2star": Volume(np.abs(scan) + 0.03, AFFINE, "t2star", "s"),
                "fieldgradient": Volume(np.abs(scan), AFFINE, "r2star", "1/s"),
            }
            rows.append(
                subject_idps(
                    maps, parcels, Mask(whole, AFFINE), participant_id=f"sub-{k:02d}", session_id=session,
                    lesions=Mask(lesion, AFFINE), white_matter=Mask(tissue, AFFINE),
                )
            )  # fmt: skip
    return concat_results(rows), age


def test_prepare_takes_the_table(tmp_path):
    rows, age = cohort_rows()
    write_idps(rows, tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {
        *IDP_FILES, "idps.json", "idps_confounds.json", "idps_adjusted.json",
    }  # fmt: skip
    table = read_table(tmp_path / "idps.tsv")
    assert len(table.names) == 2 * (16 + 1)
    assert {c.unit for c in table.columns} == {"ppb", "ms"}
    people = SampleIndex.of(table.samples.ids[::-1])
    write_table(PhenotypeTable(people, (Column("age", age[::-1]),)), tmp_path / "participants.tsv")
    out = tmp_path / "traits.parquet"
    assert code_of("cohort", "prepare", tmp_path / "idps.tsv", "--normalise", "rank", "--out", out, "--quiet") == 0
    prepared = read_table(out)
    assert prepared.names == table.names
    assert np.isfinite(prepared.matrix()).mean() > 0.9
    found = np.corrcoef(prepared.column("QSM_left_putamen_median").values, age)[0, 1]
    assert found > 0.9
    adjusted = ["--participants", tmp_path / "participants.tsv", "--confounds", "age", "--out", out, "--quiet"]
    assert code_of("cohort", "prepare", tmp_path / "idps.tsv", *adjusted) == 0
    assert abs(np.corrcoef(read_table(out).column("QSM_left_putamen_median").values, age)[0, 1]) < 1e-8
    assert code_of(
        "cohort", "prepare", tmp_path / "idps_adjusted.tsv", "--out", tmp_path / "adjusted.tsv", "--quiet"
    ) in (0, 3)  # fmt: skip


def test_the_phenome_scan_finds_the_planted_region(tmp_path):
    rows, age = cohort_rows()
    write_idps(rows, tmp_path)
    people = SampleIndex.of([f"sub-{k:02d}" for k in range(N)])
    grip = -0.5 * age + np.random.default_rng(1).normal(0, 2, N)
    noise = np.random.default_rng(2).normal(size=N)
    write_table(PhenotypeTable(people, (Column("grip", grip), Column("noise", noise))), tmp_path / "phenotypes.tsv")
    traits, out = tmp_path / "traits.parquet", tmp_path / "phenome.tsv"
    assert code_of("cohort", "prepare", tmp_path / "idps.tsv", "--out", traits, "--quiet") == 0
    assert code_of("associate", "phenome", traits, tmp_path / "phenotypes.tsv", "--out", out, "--quiet") == 0
    found = read_results(out)
    strong = found["p_bonferroni"] < 1e-6
    assert set(found["phenotype"][strong]) == {"grip"}
    assert {"QSM_left_putamen_median", "QSM_right_putamen_median"} <= set(found["trait"][strong])
    assert all("putamen" in name for name in found["trait"][strong])


def test_units_and_descriptions(tmp_path):
    rows, _ = cohort_rows()
    write_idps(rows, tmp_path)
    notes = json.loads((tmp_path / "idps.json").read_text())
    assert notes["QSM_left_putamen_median"]["Units"] == "ppb"
    assert notes["T2star_left_putamen_median"]["Units"] == "ms"
    assert notes["QSM_right_substantia_nigra_median"]["Description"].endswith("Only voxels from 0 up.")
    confounds = read_table(tmp_path / "idps_confounds.tsv")
    assert confounds.column("fieldgradient_left_putamen_median").unit == "1/s"
    assert confounds.column("left_putamen_volume").unit == "mm3"
    again = read_results(tmp_path / "idps_regions.tsv")
    for name in rows.names:
        np.testing.assert_array_equal(again[name], rows[name])


def test_sessions_have_a_table_of_scans(tmp_path):
    rows, _ = cohort_rows(("ses-1", "ses-2"))
    write_idps(rows, tmp_path)
    assert len(read_table(tmp_path / "idps.tsv").samples) == N
    visits = read_visits(tmp_path / "idps_sessions.tsv")
    assert len(visits.samples) == 2 * N
    assert set(visits.column("session_id").values) == {"ses-1", "ses-2"}
    assert visits.column("QSM_left_putamen_median").unit == "ppb"
    out = tmp_path / "traits.tsv"
    assert code_of("cohort", "prepare", tmp_path / "idps.tsv", "--out", out, "--quiet") == 0
    assert read_table(out).column("session_id").kind == "categorical"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("participant_id\tses\tx\na\t1\t2\n", "no column 'session_id'"),
        ("participant_id\tsession_id\tx\na\t\t2\n", "line 2 lacks its session_id"),
        ("participant_id\tsession_id\tx\na\t1\t2\na\t1\t3\n", "must be unique"),
    ],
)
def test_bad_tables_of_visits(tmp_path, text, message):
    from brainlocus.core import SchemaError

    path = tmp_path / "table.tsv"
    path.write_text(text)
    with pytest.raises(SchemaError, match=message):
        read_visits(path)
