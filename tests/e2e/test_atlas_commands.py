"""``atlas hierarchy``, ``annotate`` and ``reproducibility`` through the command line."""

import json

import numpy as np
import pytest

from brainlocus.core import Parcellation, Volume
from brainlocus.io import read_results, write_parcellation, write_volume
from tests.e2e.test_cohort_commands import run

AFFINE = np.array([[-3.0, 0, 0, 14], [0, 3, 0, -16], [0, 0, 3, -14], [0, 0, 0, 1]])
SHAPE = (10, 11, 9)


def boxes(*cuts):
    """Return labels of a block divided along each axis into equal parts."""
    part = [np.minimum(np.arange(n) * k // n, k - 1) for n, k in zip((8, 8, 6), cuts, strict=True)]
    labels = np.zeros(SHAPE, dtype=np.int32)
    labels[1:9, 1:9, 1:7] = 1 + part[0][:, None, None] * cuts[1] * cuts[2] + part[1][:, None] * cuts[2] + part[2]
    return labels


@pytest.fixture(scope="module")
def atlas(tmp_path_factory):
    """A folder as `atlas fit` leaves it: two nested scales and one that cuts across them."""
    root = tmp_path_factory.mktemp("atlas")
    for scale, labels in ((2, boxes(2, 1, 1)), (8, boxes(2, 2, 2)), (9, boxes(1, 3, 3))):
        names = {k: f"C{scale}_{k}" for k in range(1, scale + 1)}
        write_parcellation(Parcellation(labels, AFFINE, names), root / f"C{scale}" / "labels.nii.gz")
    return root


def test_hierarchy(atlas, tmp_path, capsys):
    code, said = run(capsys, "atlas", "hierarchy", atlas, "--out", tmp_path / "h", "--quiet")
    assert code == 0, said
    table, scales = read_results(tmp_path / "h" / "hierarchy.tsv"), read_results(tmp_path / "h" / "scales.tsv")
    assert len(table) == 19
    rows = dict(zip(table["region"].tolist(), range(19), strict=True))
    assert table["parent"][rows["C8_6"]] == "C2_2"
    assert table["containment"][rows["C8_6"]] == 1.0
    assert table["n_children"][rows["C2_1"]] == 4
    assert table["volume_mm3"][rows["C2_1"]] == 192 * 27
    assert table["below_half"][rows["C9_5"]]
    assert scales["n_regions"].tolist() == [2, 8, 9]
    assert scales["mean_containment"].tolist()[1] == 1.0
    assert scales["coarser_scale"].tolist() == [0, 2, 8]
    tree = json.loads((tmp_path / "h" / "tree.json").read_text())
    assert {node["name"] for node in tree} == {"C2_1", "C2_2"}
    assert (tmp_path / "h" / "tree.nwk").read_text().count("'C9_") == 9
    assert (tmp_path / "h" / "tree.png").stat().st_size > 10_000
    manifest = json.loads((tmp_path / "h.json").read_text())
    assert manifest["counts"]["below_half"] == int(table["below_half"].sum())
    assert "C2 -> C8: containment 1.000" in manifest["summary"][0]


def test_hierarchy_of_files_in_any_order(atlas, tmp_path, capsys):
    files = [atlas / f"C{s}" / "labels.nii.gz" for s in (9, 2, 8)]
    code, said = run(capsys, "atlas", "hierarchy", *files, "--out", tmp_path / "files", "--quiet")
    assert code == 0, said
    run(capsys, "atlas", "hierarchy", atlas, "--out", tmp_path / "folder", "--quiet")
    for name in ("hierarchy.tsv", "scales.tsv", "tree.nwk", "tree.json"):
        assert (tmp_path / "files" / name).read_bytes() == (tmp_path / "folder" / name).read_bytes()


def test_hierarchy_of_bad_input(atlas, tmp_path, capsys):
    def refused(*files):
        code, said = run(capsys, "atlas", "hierarchy", *files, "--out", tmp_path / "no", "--quiet")
        assert code == 2
        assert not (tmp_path / "no").exists()
        return said

    one = atlas / "C2" / "labels.nii.gz"
    assert "expected 2 scales or more, found 1" in refused(one)
    assert "expected different scales" in refused(one, one)
    assert "expected C*/labels.nii.gz" in refused(tmp_path)
    assert "found nothing" in refused(one, tmp_path / "absent.nii.gz")
    moved = AFFINE.copy()
    moved[0, 3] += 1
    write_parcellation(Parcellation(boxes(2, 2, 1), moved), tmp_path / "moved.nii.gz")
    assert "moved.nii.gz has the right shape but another affine" in refused(one, tmp_path / "moved.nii.gz")
    write_parcellation(Parcellation(np.zeros(SHAPE, dtype=np.int16), AFFINE), tmp_path / "none.nii.gz")
    assert "found background only" in refused(one, tmp_path / "none.nii.gz")
    write_volume(Volume(np.full(SHAPE, 0.4, dtype=np.float32), AFFINE, ""), tmp_path / "map.nii.gz")
    assert "Is this a map instead of a parcellation?" in refused(one, tmp_path / "map.nii.gz")
