"""Files that are no transforms, or not enough; agreement with ANTs and FSL is in ``tests/golden/transforms``."""

import nibabel
import numpy as np
import pytest

from brainlocus.core import FormatError, Grid
from brainlocus.core.transforms import AffineTransform, DisplacementField
from brainlocus.io.transforms import flirt_transform, read_grid, read_transform, write_itk_affine

MATRIX = np.array([[0.9, -0.1, 0, 3], [0.1, 0.95, 0, -4], [0, 0, 1.1, 5], [0, 0, 0, 1]])
GRID = Grid((4, 5, 6), np.diag([-2.0, 2.0, 2.0, 1.0]))


def test_itk_text_round_trip(tmp_path):
    write_itk_affine(AffineTransform(MATRIX), tmp_path / "a.txt")
    (found,) = read_transform(tmp_path / "a.txt")
    assert isinstance(found, AffineTransform)
    np.testing.assert_allclose(found.matrix, MATRIX, rtol=1e-15)
    (back,) = read_transform(tmp_path / "a.txt", invert=True)
    assert isinstance(back, AffineTransform)
    np.testing.assert_allclose(back.matrix @ MATRIX, np.eye(4), atol=1e-12)


def test_plain_matrix_and_flirt_are_told_apart(tmp_path):
    np.savetxt(tmp_path / "plain.txt", MATRIX)
    (plain,) = read_transform(tmp_path / "plain.txt")
    assert isinstance(plain, AffineTransform)
    np.testing.assert_allclose(plain.matrix, MATRIX)
    np.savetxt(tmp_path / "flirt.mat", MATRIX)
    with pytest.raises(FormatError, match=r"flirt\.mat: a FLIRT matrix is in FSL's coordinates"):
        read_transform(tmp_path / "flirt.mat")
    (flirt,) = read_transform(tmp_path / "flirt.mat", source=GRID, reference=GRID)
    assert isinstance(flirt, AffineTransform)
    np.testing.assert_allclose(flirt.matrix, flirt_transform(MATRIX, GRID, GRID).matrix)
    (named,) = read_transform(tmp_path / "flirt.mat", kind="matrix", source=GRID, reference=GRID)
    assert isinstance(named, AffineTransform)
    np.testing.assert_allclose(named.matrix, MATRIX)


def test_identity_of_flirt_between_equal_images_is_the_identity():
    right_handed = Grid((4, 5, 6), np.diag([2.0, 2.0, 2.0, 1.0]))
    for grid in (GRID, right_handed):
        np.testing.assert_allclose(flirt_transform(np.eye(4), grid, grid).matrix, np.eye(4), atol=1e-12)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.mat", b"1 2 3\n4 5 6\n7 8 9\n", "expected a 4 x 4 matrix of numbers, found shape \\(3, 3\\)"),
        ("a.mat", b"0 0 0 0\n0 0 0 0\n0 0 0 0\n0 0 0 1\n", "invertible 4 x 4"),
        ("a.mat", b"\x00\xffsome bytes", "it is none"),
        ("a.txt", b"hello world\n", "it is none"),
        ("a.txt", b"#Insight Transform File V1.0\nParameters: 1 2\n", "found no 'Transform'"),
        (
            "a.txt",
            b"#Insight Transform File V1.0\nTransform: BSplineTransform_double_3_3\nParameters: 1 2\n",
            "found BSplineTransform_double_3_3 with 2 parameters",
        ),
    ],
)
def test_what_is_no_transform(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(FormatError, match=message) as caught:
        read_transform(path, source=GRID, reference=GRID)
    assert str(path) in str(caught.value)


def save(path, data, intent=0):
    header = nibabel.Nifti1Header()
    header["intent_code"] = intent
    nibabel.save(nibabel.Nifti1Image(data.astype(np.float32), GRID.affine, header), path)


def test_coefficients_are_refused_with_the_command(tmp_path):
    save(tmp_path / "T1_to_MNI_warp_coef.nii.gz", np.zeros((4, 5, 6, 3)), intent=2007)
    with pytest.raises(FormatError, match=r"fnirtfileutils --in=T1_to_MNI_warp_coef\.nii\.gz"):
        read_transform(tmp_path / "T1_to_MNI_warp_coef.nii.gz", source=GRID, reference=GRID)


def test_fields_that_lack_something(tmp_path):
    save(tmp_path / "map.nii.gz", np.zeros((4, 5, 6)))
    with pytest.raises(FormatError, match="found shape \\(4, 5, 6\\)"):
        read_transform(tmp_path / "map.nii.gz")
    save(tmp_path / "warp.nii.gz", np.zeros((4, 5, 6, 3)), intent=2006)
    with pytest.raises(FormatError, match="a warp of four dimensions is in FSL's coordinates"):
        read_transform(tmp_path / "warp.nii.gz", source=GRID)
    with pytest.raises(FormatError, match="Give the image that the warp was made for"):
        read_transform(tmp_path / "warp.nii.gz", source=GRID, reference=Grid((9, 5, 6), GRID.affine))
    save(tmp_path / "ants.nii.gz", np.ones((4, 5, 6, 1, 3)), intent=1007)
    (field,) = read_transform(tmp_path / "ants.nii.gz")
    assert isinstance(field, DisplacementField)
    assert field.displacement_mm[0, 0, 0].tolist() == [-1.0, -1.0, 1.0]
    with pytest.raises(FormatError, match="InverseWarp"):
        read_transform(tmp_path / "ants.nii.gz", invert=True)
    with pytest.raises(FormatError, match="there is no such file"):
        read_transform(tmp_path / "none.mat")
    assert read_grid(tmp_path / "map.nii.gz").shape == (4, 5, 6)


def test_several_transforms_in_one_text_file_are_refused(tmp_path):
    write_itk_affine(AffineTransform(MATRIX), tmp_path / "a.txt")
    text = (tmp_path / "a.txt").read_text()
    (tmp_path / "b.txt").write_text(text + text.split("\n", 1)[1])
    with pytest.raises(FormatError, match="found several"):
        read_transform(tmp_path / "b.txt")


def test_damaged_h5(tmp_path):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed: pip install 'brainlocus[imaging]'")
    (tmp_path / "a.h5").write_bytes(b"not hdf5")
    with pytest.raises(FormatError, match="expected an ITK transform in HDF5"):
        read_transform(tmp_path / "a.h5")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_group("TransformGroup")
    with pytest.raises(FormatError, match="at least one transform"):
        read_transform(tmp_path / "b.h5")
