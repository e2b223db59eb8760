"""Ways between scan, T1-weighted image and standard space: which files are chosen, and where points go."""

import nibabel
import numpy as np
import pytest

from brainlocus.core import AffineTransform, FormatError, Grid, Parcellation, inverted
from brainlocus.core.transforms import DisplacementField
from brainlocus.io import write_itk_affine
from brainlocus.io.nifti import write_derivative
from brainlocus.numerics.resample import map_points
from brainlocus.pipeline.qsm_spaces import find_route, read_atlas, read_leg, read_route

NAMES = {"scan": ("MEGRE", "swi"), "T1w": ("T1w",), "standard": ("MNI152",)}
STEM = ("sub-01", "ses-1")
RNG = np.random.default_rng(0)
POINTS = RNG.uniform(-40, 40, (3, 50))


def turn(degrees, shift=(0.0, 0.0, 0.0)):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix = np.array([[c, -s, 0, shift[0]], [s, c, 0, shift[1]], [0, 0, 1, shift[2]], [0, 0, 0, 1.0]])
    return AffineTransform(matrix)


T1_OF_STANDARD = turn(9, (3, -4, 2))
SCAN_OF_T1 = turn(-20, (1, 5, -6))


@pytest.fixture
def place(tmp_path):
    folder = tmp_path / "sub-01" / "ses-1" / "anat"
    folder.mkdir(parents=True)
    return folder


def put(place, name, transform):
    path = place / f"sub-01_ses-1_{name}_mode-image_xfm.txt"
    write_itk_affine(transform, path)
    return path


def route(place, target="standard", source="scan", **more):
    return find_route(place.parents[2], STEM, NAMES, target=target, source=source, **more)


def moved(found, grids=None, register=None):
    return map_points(POINTS, read_route(found, grids or {}, register))


def apply(*transforms):
    points = POINTS
    for transform in transforms:
        points = transform.matrix[:3, :3] @ points + transform.matrix[:3, 3:]
    return points


def test_a_chain_through_the_t1_goes_both_ways(place):
    put(place, "from-MEGRE_to-T1w", SCAN_OF_T1)
    put(place, "from-T1w_to-MNI152", T1_OF_STANDARD)
    there = route(place)
    assert [leg.path.name.split("_")[2] for leg in there.legs] == ["from-T1w", "from-MEGRE"]
    np.testing.assert_allclose(moved(there), apply(T1_OF_STANDARD, SCAN_OF_T1), atol=1e-9)
    back = route(place, "scan", "standard")
    assert all(name.endswith("(inverse)") for name in back.described)
    np.testing.assert_allclose(moved(back), apply(inverted(SCAN_OF_T1), inverted(T1_OF_STANDARD)), atol=1e-9)


def test_a_direct_file_comes_first_and_the_session_before_the_participant(place):
    put(place, "from-MEGRE_to-T1w", SCAN_OF_T1)
    put(place, "from-T1w_to-MNI152", T1_OF_STANDARD)
    above = place.parents[1] / "anat"
    above.mkdir()
    put(above, "from-MEGRE_to-MNI152", turn(50))
    np.testing.assert_allclose(moved(route(place)), apply(turn(50)), atol=1e-9)
    put(place, "from-swi_to-MNI152", turn(70))
    put(place, "from-MEGRE_to-MNI152", turn(60))
    np.testing.assert_allclose(moved(route(place)), apply(turn(60)), atol=1e-9)


def write_field(path, vector, *, intent="vector"):
    data = np.broadcast_to(np.float32(vector), (12, 12, 12, 1, 3)).copy()
    affine = np.diag([10.0, 10, 10, 1])
    affine[:3, 3] = -55
    image = nibabel.Nifti1Image(data, affine)
    image.header.set_intent(intent)
    nibabel.save(image, path)


def test_the_inverse_of_a_field_is_avoided_or_asked_for(place):
    start = "sub-01_ses-1_from-T1w_to-MNI152_mode-image"
    put(place, "from-MEGRE_to-T1w", SCAN_OF_T1)
    write_field(place / f"{start}_xfm.nii.gz", (2.0, 0.0, 0.0))
    there = moved(route(place))  # ITK's x is to the left
    np.testing.assert_allclose(there, apply(turn(0, (-2.0, 0, 0)), SCAN_OF_T1), atol=1e-5)
    back = route(place, "scan", "standard")
    with pytest.raises(FormatError, match=r"sub-01_ses-1_from-MNI152_to-T1w_mode-image_xfm\.\(mat.*InverseWarp"):
        read_route(back, {})
    write_field(place / "sub-01_ses-1_from-MNI152_to-T1w_mode-image_xfm.nii.gz", (-2.0, 0.0, 0.0))
    back = route(place, "scan", "standard")
    np.testing.assert_allclose(moved(back), apply(inverted(SCAN_OF_T1), turn(0, (2.0, 0, 0))), atol=1e-5)
    # An affine inverse through the T1 is preferred to the inverse of a field that is direct.
    write_field(place / "sub-01_ses-1_from-MEGRE_to-MNI152_mode-image_xfm.nii.gz", (9.0, 0.0, 0.0))
    assert len(route(place, "scan", "standard").legs) == 2


def test_the_inverse_of_a_composite_with_a_field_is_asked_for(place, monkeypatch):
    path = place / "sub-01_ses-1_from-T1w_to-MNI152_mode-image_xfm.h5"
    h5py = pytest.importorskip("h5py", reason="h5py (extra 'imaging') is not installed")
    with h5py.File(path, "w") as file:
        group = file.create_group("TransformGroup/0")
        group["TransformType"] = np.array([b"DisplacementFieldTransform_float_3_3"])
        fixed = np.concatenate([[4, 4, 4], [-20, -20, -20], [10, 10, 10], np.eye(3).ravel()])
        group["TransformFixedParameters"] = fixed.astype(np.float64)
        group["TransformParameters"] = np.zeros(4**3 * 3, dtype=np.float32)
    assert isinstance(read_leg(path, source=None, reference=None)[0], DisplacementField)
    with pytest.raises(FormatError, match="from-MNI152_to-T1w"):
        read_leg(path, source=None, reference=None, invert=True)


def test_fsl_matrices_take_the_grids_of_their_images(place):
    """FLIRT's matrix of a shift by whole mm, worked out by hand for images of both handednesses."""
    scan = Grid((40, 50, 20), np.array([[-1.0, 0, 0, 20], [0, 1, 0, -25], [0, 0, 2, -20], [0, 0, 0, 1]]))
    t1w = Grid((60, 60, 60), np.array([[1.0, 0, 0, -30], [0, 1, 0, -30], [0, 0, 1, -30], [0, 0, 0, 1]]))
    np.savetxt(place / "sub-01_ses-1_from-MEGRE_to-T1w_mode-image_xfm.mat", np.eye(4))
    put(place, "from-T1w_to-MNI152", turn(0))
    chain = read_route(route(place), {"scan": scan, "T1w": t1w})
    # The right-most point of both is FSL's origin: of the scan x = 20, of the T1w x = -30 + 59.
    np.testing.assert_allclose(map_points(np.array([[29.0], [-30], [-30]]), chain).ravel(), [20, -25, -20])
    with pytest.raises(FormatError, match=r"T1-weighted image \(\*_T1w\.nii\.gz\) in --segmentations"):
        read_route(route(place), {"scan": scan})


def test_a_fnirt_field_lies_on_its_own_reference(place):
    """Its grid may be finer or coarser than the one the maps are written on."""
    own = np.array([[-10.0, 0, 0, 55], [0, 10, 0, -55], [0, 0, 10, -55], [0, 0, 0, 1]])
    data = np.zeros((12, 12, 12, 3), dtype=np.float32)
    data[..., 1] = 4.0
    path = place / "sub-01_ses-1_from-MEGRE_to-MNI152_mode-image_xfm.nii.gz"
    image = nibabel.Nifti1Image(data, own)
    image.header.set_intent(2006)
    nibabel.save(image, path)
    scan = Grid((12, 12, 12), own)
    other = Grid((110, 110, 110), np.array([[-1.0, 0, 0, 55], [0, 1, 0, -55], [0, 0, 1, -55], [0, 0, 0, 1]]))
    there = moved(route(place), {"scan": scan, "standard": other})
    np.testing.assert_allclose(there, POINTS + np.array([[0.0], [4.0], [0.0]]), atol=1e-5)


def test_coefficients_are_named_only_where_there_is_nothing_else(place):
    write_field(
        place / "sub-01_ses-1_from-MEGRE_to-MNI152_mode-image_desc-coefficients_xfm.nii.gz", (0, 0, 0), intent=2009
    )
    with pytest.raises(FormatError, match="fnirtfileutils"):
        read_route(route(place), {})
    put(place, "from-MEGRE_to-MNI152", turn(5))
    np.testing.assert_allclose(moved(route(place)), apply(turn(5)), atol=1e-9)


def test_a_missing_way_says_what_was_expected_and_what_is_there(place):
    put(place, "from-T1w_to-MNI152NLin6Asym", turn(5))
    (place / "sub-01_ses-1_from-MEGRE_to-MNI152_mode-image_xfm.json").write_text("{}")
    found = route(place)
    assert found.legs == ()
    for words in (
        "from-MEGRE_to-MNI152_",
        "from-T1w_to-MNI152,",
        "found transforms of MNI152NLin6Asym",
        "sub-01 ses-1",
    ):
        assert words in found.missing
    with pytest.raises(FormatError, match="No transform from MEGRE to MNI152"):
        read_route(found, {})


def test_a_registration_stands_in_for_a_missing_transform(place):
    put(place, "from-T1w_to-MNI152", T1_OF_STANDARD)
    assert route(place).legs == ()
    T1_of_scan = turn(33, (1, 2, 3))
    there, back = route(place, can_register=True), route(place, "scan", "standard", can_register=True)
    np.testing.assert_allclose(
        moved(there, register=lambda: (T1_of_scan,)), apply(T1_OF_STANDARD, inverted(T1_of_scan)), atol=1e-9
    )
    np.testing.assert_allclose(
        moved(back, register=lambda: (T1_of_scan,)), apply(T1_of_scan, inverted(T1_OF_STANDARD)), atol=1e-9
    )
    put(place, "from-MEGRE_to-T1w", SCAN_OF_T1)
    assert "registration" not in " ".join(route(place, can_register=True).described)


def test_an_atlas_without_known_regions_is_refused(tmp_path):
    labels = Parcellation(np.arange(8, dtype=np.int16).reshape(2, 2, 2), np.eye(4))
    write_derivative(labels, tmp_path / "atlas.nii.gz", {})
    with pytest.raises(FormatError, match=r"atlas\.nii\.gz: .*none of the subcortical regions"):
        read_atlas(tmp_path / "atlas.nii.gz")
    (tmp_path / "atlas.tsv").write_text("index\tname\n1\tLeft-SN\n2\tRight-SN\n")
    assert read_atlas(tmp_path / "atlas.nii.gz").names == {1: "Left-SN", 2: "Right-SN"}
