"""Regions on faces, names by table, and label files of every format."""

import numpy as np
import pytest

from brainlocus.core import FormatError, SchemaError
from brainlocus.core.surfaces import Surface, SurfaceLabels
from brainlocus.genetics.twas import (
    DESIKAN_KILLIANY,
    border_edges,
    desikan_killiany_codes,
    enigma_regions,
    face_codes,
    face_values,
    match_regions,
    subcortical_labels,
)
from brainlocus.io.surfaces import read_fsaverage5, read_label_codes, read_surface, read_surface_labels
from tests.real_data import real_data

SQUARE = Surface(
    np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]), np.array([[0, 1, 2], [0, 2, 3]])
)  # fmt: skip


def test_faces_take_the_label_of_most_of_their_vertices():
    labels = SurfaceLabels(np.array([1, 2, 2, 3]), {1: "lh_a", 2: "lh_b"})
    codes = face_codes(SQUARE, labels)
    assert codes.tolist() == [2, 1]
    values, inside = face_values(codes, labels.names, {"lh_b": -1.5})
    assert values[0] == -1.5
    assert np.isnan(values[1])
    assert inside.tolist() == [True, True]
    _, inside = face_values(codes, {2: "lh_b"}, {})
    assert inside.tolist() == [True, False]


def test_border_is_the_edge_between_different_faces():
    edges, sides = border_edges(SQUARE, np.array([5, 6]))
    assert (edges.tolist(), sides.tolist()) == ([[0, 2]], [[0, 1]])
    assert border_edges(SQUARE, np.array([5, 5]))[0].shape == (0, 2)


def test_a_face_of_a_vertex_that_is_not_there():
    with pytest.raises(SchemaError, match="names vertex 9, but there are 4"):
        Surface(SQUARE.vertices, np.array([[0, 1, 9]]))


def test_names_are_matched_by_table_and_not_by_likeness():
    known = frozenset({"lh_insula", "rh_insula", "Left-Caudate"})
    found = match_regions(["L_insula", "lh_insula", "Lcaud", "L_Insula", "R_cuneus"], enigma_regions(), known)
    assert found.label == ("lh_insula", "lh_insula", "Left-Caudate", "", "rh_cuneus")
    assert found.matched.tolist() == [True, True, True, False, False]


def test_tables_of_names_are_whole():
    codes = desikan_killiany_codes()
    assert (codes[1], codes[35], codes[36], codes[70]) == ("lh_bankssts", "lh_insula", "rh_bankssts", "rh_insula")
    table = enigma_regions()
    assert len(table) == 2 * 34 + 2 * 8
    assert set(table.values()) <= set(codes.values()) | set(subcortical_labels())
    assert len(DESIKAN_KILLIANY) == 35


@pytest.fixture
def labelled(tmp_path):
    """A mesh of four vertices with two regions, in every format."""
    nibabel = pytest.importorskip("nibabel")
    for side, names in (("lh", ["unknown", "G_front_sup", "S_central"]), ("rh", ["unknown", "G_front_sup"])):
        code = np.array([0, 1, 1, 2 if side == "lh" else 1], dtype=np.int32)
        colours = np.array([[k, 9, 9, 0, k + 9 * 256 + 9 * 65536] for k in range(len(names))])
        nibabel.freesurfer.write_annot(str(tmp_path / f"{side}.aparc.a2009s.annot"), code, colours, names)
        array = nibabel.gifti.GiftiDataArray(code, intent="NIFTI_INTENT_LABEL", datatype="NIFTI_TYPE_INT32")
        table = nibabel.gifti.GiftiLabelTable()
        for k, name in enumerate(names):
            entry = nibabel.gifti.GiftiLabel(key=k)
            entry.label = name
            table.labels.append(entry)
        image = nibabel.gifti.GiftiImage(darrays=[array], labeltable=table)
        nibabel.save(image, tmp_path / f"{side}.label.gii")
        points = nibabel.gifti.GiftiDataArray(
            SQUARE.vertices.astype(np.float32), intent="NIFTI_INTENT_POINTSET", datatype="NIFTI_TYPE_FLOAT32"
        )
        faces = nibabel.gifti.GiftiDataArray(
            SQUARE.faces.astype(np.int32), intent="NIFTI_INTENT_TRIANGLE", datatype="NIFTI_TYPE_INT32"
        )
        nibabel.save(nibabel.gifti.GiftiImage(darrays=[points, faces]), tmp_path / f"{side}.surf.gii")
        nibabel.freesurfer.write_geometry(str(tmp_path / f"{side}.pial"), SQUARE.vertices, SQUARE.faces)
    (tmp_path / "both.csv").write_text("0\n1\n1\n2\n0\n3\n3\n3\n")
    (tmp_path / "codes.tsv").write_text("code\tlabel\n0\tunknown\n1\tlh_G_front_sup\n2\tS_central\n3\trh_G_front_sup\n")
    return tmp_path


@pytest.mark.parametrize("names", ["{}.aparc.a2009s.annot", "{}.label.gii", "both.csv"])
def test_labels_of_every_format_are_the_same(labelled, names):
    paths = [labelled / "both.csv"] if names == "both.csv" else [labelled / names.format(s) for s in ("lh", "rh")]
    codes = read_label_codes(labelled / "codes.tsv")
    left, right = read_surface_labels(paths, codes=codes)
    assert [left.names.get(int(c), "") for c in left.code] == ["", "lh_G_front_sup", "lh_G_front_sup", "lh_S_central"]
    assert [right.names.get(int(c), "") for c in right.code] == ["", *["rh_G_front_sup"] * 3]


@pytest.mark.parametrize("name", ["lh.surf.gii", "lh.pial"])
def test_meshes_of_both_formats(labelled, name):
    mesh = read_surface(labelled / name)
    assert np.array_equal(mesh.vertices, SQUARE.vertices)
    assert np.array_equal(mesh.faces, SQUARE.faces)


def test_bad_files(labelled):
    codes = read_label_codes(labelled / "codes.tsv")
    annots = [labelled / f"{s}.aparc.a2009s.annot" for s in ("rh", "lh")]
    with pytest.raises(SchemaError, match=r"expected left, then right, found rh\.aparc"):
        read_surface_labels(annots)
    with pytest.raises(SchemaError, match="needs a table of what they mean"):
        read_surface_labels([labelled / "both.csv"])
    with pytest.raises(SchemaError, match="1 codes of the lh have no name in the table: 2"):
        read_surface_labels([labelled / "both.csv"], codes={0: "unknown", 1: "a", 3: "b"})
    with pytest.raises(SchemaError, match=r"a vertex of the rh has the label lh_x\. Are left and right swapped"):
        read_surface_labels([labelled / "both.csv"], codes=codes | {3: "lh_x"})
    with pytest.raises(SchemaError, match="found 3 files"):
        read_surface_labels([labelled / "both.csv"] * 3)
    (labelled / "odd.csv").write_text("1\n2\n3\n")
    with pytest.raises(FormatError, match="as many labels left as right, found 3"):
        read_surface_labels([labelled / "odd.csv"], codes=codes)
    (labelled / "text.csv").write_text("one\ntwo\n")
    with pytest.raises(FormatError, match="expected a whole number a vertex"):
        read_surface_labels([labelled / "text.csv"], codes=codes)
    (labelled / "twice.tsv").write_text("code\tlabel\n1\ta\n1\tb\n")
    with pytest.raises(SchemaError, match="line 3: code 1 is there twice"):
        read_label_codes(labelled / "twice.tsv")
    (labelled / "half.tsv").write_text("code\tlabel\n1.5\ta\n")
    with pytest.raises(FormatError, match=r"line 2: expected a whole number as code, found '1.5'"):
        read_label_codes(labelled / "half.tsv")
    for name in ("broken", "broken.gii"):
        (labelled / name).write_bytes(b"\x00\x01nothing")
        with pytest.raises(FormatError, match=r"expected a surface mesh"):
            read_surface(labelled / name)
        with pytest.raises(FormatError, match=r"expected labels"):
            read_surface_labels([labelled / name, labelled / name])


def test_fsaverage5_comes_with_nilearn():
    pytest.importorskip("nilearn")
    for kind in ("inflated", "pial"):
        for mesh in read_fsaverage5(kind):
            assert mesh.vertices.shape == (10_242, 3)
            assert mesh.faces.shape == (20_480, 3)


def test_enigma_labels_lie_where_the_regions_are():
    """The order of codes by anatomy: where the middles of regions are on ENIGMA's own mesh, which is nilearn's."""
    path = real_data("twas/enigma/surfaces/aparc_fsa5.csv")
    labels = read_surface_labels([path], codes=desikan_killiany_codes())
    meshes = read_fsaverage5("pial")
    for mesh, label, side in zip(meshes, labels, ("lh", "rh"), strict=True):
        theirs = read_surface(path.with_name(f"fsa5_{side}.gii"))
        assert np.array_equal(theirs.vertices, mesh.vertices)
        assert len(label.names) == 34
        at = {
            name.removeprefix(f"{side}_"): mesh.vertices[label.code == code].mean(axis=0)
            for code, name in label.names.items()
        }
        outward = -1 if side == "lh" else 1
        front_to_back = ("frontalpole", "rostralmiddlefrontal", "precentral", "superiorparietal", "lateraloccipital")
        assert (np.diff([at[name][1] for name in front_to_back]) < 0).all()
        assert at["superiorfrontal"][2] > at["insula"][2] > at["inferiortemporal"][2]
        assert outward * at["insula"][0] > outward * at["precuneus"][0]
        assert at["temporalpole"][1] > at["fusiform"][1] > at["lingual"][1]
        assert at["postcentral"][1] < at["precentral"][1]
        assert outward * at["bankssts"][0] > 45
