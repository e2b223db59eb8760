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


@pytest.fixture(scope="module")
def conventional(tmp_path_factory):
    """An atlas of other voxels and directions: four quarters, with labels and names of its own."""
    root = tmp_path_factory.mktemp("conventional")
    affine = np.array([[0, 2.0, 0, -15], [0, 0, -2.0, 17], [2.0, 0, 0, -15], [0, 0, 0, 1]])
    i, j, k = np.indices((16, 18, 18))
    x, y = (affine[r, 0] * i + affine[r, 1] * j + affine[r, 2] * k + affine[r, 3] for r in (0, 1))
    labels = np.where(y > 0, 2000, 1000) + np.where(x > 0, 2, 1)
    write_parcellation(Parcellation(labels, affine), root / "quarters.nii.gz")
    (root / "quarters.json").unlink()
    (root / "names.txt").write_text(
        "1001 Back_L 10 20 30 0\n1002 Back_R 40 50 60 0\n2001 Front_L 70 80 90 0\n2002 Front_R 0 0 9 0\n"
    )
    return root


def test_annotate(atlas, conventional, tmp_path, capsys):
    code, said = run(
        capsys, "atlas", "annotate", atlas, "--by", conventional / "quarters.nii.gz", "--names",
        conventional / "names.txt", "--out", tmp_path / "names.tsv", "--quiet",
    )  # fmt: skip
    assert code == 0, said
    table = read_results(tmp_path / "names.tsv")
    assert sorted(set(table["scale"].tolist())) == [2, 8, 9]
    row = table["region"].tolist().index("C8_6")  # x from -10 to -1, y from 0 on: axis 0 runs to the left
    assert table["anatomical_name"][row] == "Back_L"
    assert table["laterality"][row] == "L"
    assert table["fraction_in"][row] == 1.0
    halves = [k for k, name in enumerate(table["region"].tolist()) if name == "C2_1"]
    assert [table["atlas_region"][k] for k in halves] == ["Back_R", "Front_R"]
    assert table["fraction_in"][halves].sum() == pytest.approx(1.0)
    assert table["laterality"][halves[0]] == "R"
    middle = table["region"].tolist().index("C9_1")
    assert table["laterality"][middle] == "bilateral"


def test_annotate_without_names(atlas, conventional, tmp_path, capsys):
    code, said = run(
        capsys, "atlas", "annotate", atlas / "C2" / "labels.nii.gz", "--by", conventional / "quarters.nii.gz", "--out",
        tmp_path / "t.tsv",
    )  # fmt: skip
    assert code == 0, said
    manifest = json.loads((tmp_path / "t.tsv.json").read_text())
    assert manifest["summary"][-1] == "4 regions have no name and are called by their label; give --names"
    assert read_results(tmp_path / "t.tsv")["anatomical_name"].tolist()[0].startswith("label ")


def test_parcel_in_no_region(tmp_path, capsys):
    labels = np.zeros((4, 1, 1), dtype=np.int16)
    labels[:2], labels[2:] = 1, 2
    write_parcellation(Parcellation(labels, AFFINE), tmp_path / "two.nii.gz")
    write_parcellation(Parcellation(np.where(labels == 1, 5, 0), AFFINE, {5: "here"}), tmp_path / "one.nii.gz")
    code, _ = run(
        capsys, "atlas", "annotate", tmp_path / "two.nii.gz", "--by", tmp_path / "one.nii.gz", "--out",
        tmp_path / "t.tsv", "--quiet",
    )  # fmt: skip
    assert code == 0
    table = read_results(tmp_path / "t.tsv")
    assert table["anatomical_name"].tolist() == ["here", ""]
    assert table["atlas_label"].tolist() == [5, 0]
    assert np.isnan(table["fraction_in"][1])
    assert json.loads((tmp_path / "t.tsv.json").read_text())["counts"]["parcels_without_region"] == 1


def test_annotate_by_bad_input(atlas, conventional, tmp_path, capsys):
    one, by = atlas / "C2" / "labels.nii.gz", conventional / "quarters.nii.gz"

    def refused(*arguments):
        code, said = run(capsys, "atlas", "annotate", one, *arguments, "--out", tmp_path / "t.tsv", "--quiet")
        assert code == 2
        assert not (tmp_path / "t.tsv").exists()
        return said

    (tmp_path / "other.txt").write_text("7 Elsewhere\n")
    assert "expected names of the labels" in refused("--by", by, "--names", tmp_path / "other.txt")
    assert "absent.txt" in refused("--by", by, "--names", tmp_path / "absent.txt")
    far = AFFINE.copy()
    far[0, 3] += 500
    write_parcellation(Parcellation(boxes(2, 2, 1), far), tmp_path / "far.nii.gz")
    assert "share no labelled voxel" in refused("--by", tmp_path / "far.nii.gz")
    write_parcellation(Parcellation(np.zeros(SHAPE, dtype=np.int16), AFFINE), tmp_path / "none.nii.gz")
    assert "found background only" in refused("--by", tmp_path / "none.nii.gz")
    write_volume(Volume(np.full(SHAPE, 0.4, dtype=np.float32), AFFINE, ""), tmp_path / "map.nii.gz")
    assert "Is this a map instead of a parcellation?" in refused("--by", tmp_path / "map.nii.gz")
    assert "--min-fraction" in refused("--by", by, "--min-fraction", "0")
