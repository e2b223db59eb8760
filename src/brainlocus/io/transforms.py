"""Transforms of registration programs: ITK/ANTs, FSL's FLIRT and FNIRT, and plain matrices.

Whatever a file says, what comes back maps points of the target (reference, fixed image) to points of the source (moving
image) in world mm, RAS+, see `core.transforms`.

======================  =============================================================================================
file                    what it holds
======================  =============================================================================================
ITK ``.txt .tfm .mat``  affine about a centre, in LPS, target to source
ITK ``.h5``             a list of affine transforms and fields; the last is applied first
ANTs ``*Warp.nii.gz``   displacements in mm in LPS, five dimensions
FLIRT ``.mat``          4 x 4, *source to reference*, in scaled voxels with the first axis flipped where det(affine) > 0
FNIRT ``*warp.nii.gz``  displacements (or positions) in scaled voxels of the source, on the reference's grid
plain ``.txt``          4 x 4, target to source, in world mm RAS
======================  =============================================================================================

FSL's files do not say what images they belong to: both grids are given with them. FNIRT's coefficient files are refused
with the command that turns them into a field.

References
----------
Jenkinson & Smith (2001), Med Image Anal 5:143; FSL wiki, FLIRT FAQ, "What is the format of the matrix"; fslpy,
``fsl.transform.fnirt``; ITK, ``itk::MatrixOffsetTransformBase`` and ``itk::CompositeTransform``.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Float64

from brainlocus.core import FormatError, Grid
from brainlocus.core.errors import import_extra
from brainlocus.core.transforms import AffineTransform, DisplacementField, Transform, inverted
from brainlocus.io.atomic import atomic_path
from brainlocus.io.nifti import is_nifti

__all__ = ["flirt_transform", "read_grid", "read_transform", "write_itk_affine"]

_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])

_COEFFICIENTS = (2007, 2008, 2009, 2016, 2017)
_AFFINE_TYPES = ("MatrixOffsetTransformBase", "AffineTransform", "CenteredAffineTransform", "Rigid3DTransform")
_EULER_TYPES = ("Euler3DTransform", "CenteredEuler3DTransform")


def read_grid(path: Path) -> Grid:
    """Return the grid of an image from its header, without reading voxels.

    Raises
    ------
    FormatError
        Not a NIfTI image.
    """
    image = _nifti(path)
    x, y, z = (int(n) for n in image.shape[:3])
    return Grid((x, y, z), np.asarray(image.affine, dtype=np.float64))


def read_transform(
    path: Path,
    *,
    source: Grid | None = None,
    reference: Grid | None = None,
    kind: Literal["auto", "matrix"] = "auto",
    invert: bool = False,
) -> tuple[Transform, ...]:
    """Read a transform as a chain from target to source.

    Parameters
    ----------
    source, reference
        Grids of the image that was moved and of the image it was moved to; FSL's files need both, others none.
    kind
        ``matrix``: a 4 x 4 text file is a plain matrix in world mm even when grids are given.
    invert
        Use an affine transform in the other direction.

    Raises
    ------
    FormatError
        An unknown or damaged file; FSL's without their grids; FNIRT coefficients; a field that is to be inverted.
    MissingExtraError
        nibabel or h5py is absent and needed.
    """
    if not path.is_file():
        raise FormatError(f"{path}: there is no such file. Expected a transform (.mat, .txt, .tfm, .h5, .nii.gz).")
    if path.name.endswith(".h5"):
        chain = _read_itk_h5(path)
    elif is_nifti(path):
        chain = (_read_field(path, source, reference),)
    else:
        chain = (_read_matrix(path, source, reference, kind),)
    if not invert:
        return chain
    try:
        return tuple(inverted(transform) for transform in reversed(chain))
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from None


def flirt_transform(matrix: Float[np.ndarray, "4 4"], source: Grid, reference: Grid) -> AffineTransform:
    """Return the transform from the reference's world to the source's of a FLIRT matrix.

    ``world_source = A_s F_s^-1 M^-1 F_r A_r^-1 world_reference``, F the matrix from voxels to FLIRT's coordinates.
    """
    scaled = AffineTransform(np.asarray(matrix, dtype=np.float64)).matrix
    back = source.affine @ np.linalg.inv(_fsl_scaling(source))
    forth = _fsl_scaling(reference) @ np.linalg.inv(reference.affine)
    return AffineTransform(back @ np.linalg.inv(scaled) @ forth)


def write_itk_affine(transform: AffineTransform, path: Path) -> None:
    """Write an affine transform as ITK text, which ANTs, 3D Slicer and `read_transform` read."""
    lps = _LPS @ transform.matrix @ _LPS
    numbers = " ".join(repr(float(v)) for v in (*lps[:3, :3].ravel(), *lps[:3, 3]))
    text = (
        "#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n"
        f"Parameters: {numbers}\nFixedParameters: 0 0 0\n"
    )
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="ascii")


def _fsl_scaling(grid: Grid) -> Float64[np.ndarray, "4 4"]:
    """Return voxel indices to FSL's coordinates: mm from the first voxel, the first axis counted from the right."""
    size = np.linalg.norm(grid.affine[:3, :3], axis=0)
    scaling = np.diag([*size, 1.0])
    if np.linalg.det(grid.affine[:3, :3]) > 0:
        scaling[0, 0], scaling[0, 3] = -size[0], (grid.shape[0] - 1) * size[0]
    return np.asarray(scaling, dtype=np.float64)


def _both(path: Path, source: Grid | None, reference: Grid | None, what: str) -> tuple[Grid, Grid]:
    if source is None or reference is None:
        raise FormatError(
            f"{path}: {what} is in FSL's coordinates, which depend on both images; give the source (moved) and the "
            "reference image with it."
        )
    return source, reference


def _read_matrix(path: Path, source: Grid | None, reference: Grid | None, kind: str) -> AffineTransform:
    head = path.read_bytes()[:64]
    if head.startswith(b"#Insight Transform File"):
        return _read_itk_text(path)
    try:
        matrix = np.array([[float(v) for v in line.split()] for line in path.read_text("ascii").splitlines() if line])
    except (UnicodeDecodeError, ValueError):
        return _read_itk_matlab(path)
    if matrix.shape != (4, 4):
        raise FormatError(f"{path}: expected a 4 x 4 matrix of numbers, found shape {matrix.shape}.")
    try:
        plain = AffineTransform(matrix)
        if kind == "matrix" or (path.suffix == ".txt" and source is None and reference is None):
            return plain
        return flirt_transform(matrix, *_both(path, source, reference, "a FLIRT matrix"))
    except FormatError as error:
        raise error if str(path) in str(error) else FormatError(f"{path}: {error}") from None


def _read_itk_text(path: Path) -> AffineTransform:
    fields: dict[str, str] = {}
    for line in path.read_text("ascii", errors="replace").splitlines():
        name, _, rest = line.partition(":")
        if name in fields and name == "Transform":
            raise FormatError(f"{path}: expected one transform in an ITK text file, found several; give each its own.")
        fields[name.strip()] = rest.strip()
    try:
        kind = fields["Transform"]
        parameters = np.array([float(v) for v in fields["Parameters"].split()])
        fixed = np.array([float(v) for v in fields.get("FixedParameters", "0 0 0").split()])
    except (KeyError, ValueError) as error:
        raise FormatError(f"{path}: expected Transform, Parameters and FixedParameters, found no {error}.") from None
    return _itk_affine(kind, parameters, fixed, path)


def _read_itk_matlab(path: Path) -> AffineTransform:
    """Read ANTs' ``*GenericAffine.mat``, a MATLAB 4 file whose variable is named after the transform."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        found = loadmat(path)
    except (MatReadError, ValueError, NotImplementedError, TypeError, OSError) as error:
        raise FormatError(
            f"{path}: expected an ITK transform, a FLIRT matrix or 4 lines of 4 numbers; it is none: {error}"
        ) from error
    names = [name for name in found if not name.startswith("__") and name != "fixed"]
    if len(names) != 1 or "fixed" not in found:
        raise FormatError(f"{path}: expected one ITK transform and 'fixed' in a .mat file, found {sorted(found)}.")
    return _itk_affine(names[0], found[names[0]].ravel(), found["fixed"].ravel(), path)


def _itk_affine(
    kind: str, parameters: Float[np.ndarray, " parameters"], fixed: Float[np.ndarray, " fixed"], path: Path
) -> AffineTransform:
    """Return ``y = M (x - c) + c + t`` (LPS) as a matrix in RAS.

    Of Euler3DTransform the six parameters are rotations about x, y, z in radians, M = Rz Rx Ry, and t.
    """
    name = kind.split("_")[0]
    centre = fixed[:3].astype(np.float64) if fixed.size >= 3 else np.zeros(3)
    if name in _AFFINE_TYPES and parameters.size == 12:
        linear, shift = parameters[:9].reshape(3, 3), parameters[9:]
    elif name in _EULER_TYPES and parameters.size == 6:
        linear, shift = _euler(parameters[:3]), parameters[3:]
    elif name == "VersorRigid3DTransform" and parameters.size == 6:
        linear, shift = _versor(parameters[:3]), parameters[3:]
    elif name == "TranslationTransform" and parameters.size == 3:
        linear, shift = np.eye(3), parameters
    elif name == "IdentityTransform":
        linear, shift = np.eye(3), np.zeros(3)
    else:
        raise FormatError(
            f"{path}: expected an affine, rigid (Euler3D) or translation transform of three dimensions, found {kind} "
            f"with {parameters.size} parameters. Convert it with ANTs (antsApplyTransforms -o Linear[...])."
        )
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = np.asarray(shift, dtype=np.float64) + centre - linear @ centre
    try:
        return AffineTransform(_LPS @ matrix @ _LPS)
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from None


def _euler(angles: Float[np.ndarray, "3"]) -> Float64[np.ndarray, "3 3"]:
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1.0, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1.0, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1.0]])
    return np.asarray(about_z @ about_x @ about_y, dtype=np.float64)


def _versor(axis: Float[np.ndarray, "3"]) -> Float64[np.ndarray, "3 3"]:
    """Return the rotation of a unit quaternion's vector part, whose scalar part is positive."""
    x, y, z = (float(v) for v in axis)
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    scalar = float(np.sqrt(max(0.0, 1.0 - x * x - y * y - z * z)))
    return np.asarray(np.eye(3) + 2.0 * scalar * cross + 2.0 * cross @ cross)


def _read_itk_h5(path: Path) -> tuple[Transform, ...]:
    """Read a composite transform; what the file lists last is applied to the target's points first."""
    h5py = import_extra("h5py", extra="imaging")
    chain: list[Transform] = []
    try:
        with h5py.File(path, "r") as file:
            group = file["TransformGroup"]
            for number in sorted(group, key=int):
                kind = group[number]["TransformType"][()]
                text = kind[0] if isinstance(kind, np.ndarray) else kind
                name = text.decode() if isinstance(text, bytes) else str(text)
                if name.startswith("CompositeTransform"):
                    continue
                # ITK long wrote these two names with a typo.
                fixed = _either(group[number], "TransformFixedParameters", "TranformFixedParameters")
                parameters = _either(group[number], "TransformParameters", "TranformParameters")
                if name.startswith("DisplacementFieldTransform"):
                    chain.append(_itk_field(parameters, fixed))
                else:
                    chain.append(_itk_affine(name, parameters, fixed, path))
    except (OSError, KeyError, ValueError) as error:
        raise FormatError(f"{path}: expected an ITK transform in HDF5, but it cannot be read: {error}") from error
    if not chain:
        raise FormatError(f"{path}: expected at least one transform, found none.")
    return tuple(reversed(chain))


def _either(group: Any, *names: str) -> Float[np.ndarray, " numbers"]:
    name = next((name for name in names if name in group), names[0])
    return np.asarray(group[name][()])


def _itk_field(parameters: Float[np.ndarray, " numbers"], fixed: Float[np.ndarray, " fixed"]) -> DisplacementField:
    """Return a field from ITK's flat numbers: size, origin, spacing, direction; three numbers a voxel, x fastest."""
    shape = fixed[:3].astype(int)
    affine = np.eye(4)
    affine[:3, :3] = fixed[9:18].reshape(3, 3) * fixed[6:9]
    affine[:3, 3] = fixed[3:6]
    vectors = parameters.reshape(*shape[::-1], 3).transpose(2, 1, 0, 3)
    return DisplacementField(_from_lps(vectors), _LPS @ affine)


def _from_lps(vectors: Float[np.ndarray, "x y z 3"]) -> Float[np.ndarray, "x y z 3"]:
    return np.ascontiguousarray(vectors * np.array([-1.0, -1.0, 1.0]), dtype=np.float32)


def _nifti(path: Path) -> Any:
    nibabel = import_extra("nibabel", extra="imaging")
    try:
        return nibabel.load(path)
    except (nibabel.filebasedimages.ImageFileError, FileNotFoundError, EOFError, OSError) as error:
        raise FormatError(f"{path}: expected a NIfTI image, but it cannot be read: {error}") from error


def _read_field(path: Path, source: Grid | None, reference: Grid | None) -> DisplacementField:
    image = _nifti(path)
    intent = int(image.header["intent_code"])
    if intent in _COEFFICIENTS:
        raise FormatError(
            f"{path}: this is a file of spline coefficients, not of displacements. Convert it with FSL: "
            f"fnirtfileutils --in={path.name} --ref=REFERENCE --out=warp --withaff"
        )
    shape = tuple(image.shape)
    if len(shape) == 5 and shape[3:] == (1, 3):
        vectors = np.asarray(image.dataobj, dtype=np.float32)[:, :, :, 0]
        return DisplacementField(_from_lps(vectors), np.asarray(image.affine, dtype=np.float64))
    if len(shape) == 4 and shape[3] == 3:
        what = "a warp of four dimensions"
        source, reference = _both(path, source, reference, what)
        return _fsl_field(np.asarray(image.dataobj, dtype=np.float64), image, source, reference, path)
    raise FormatError(
        f"{path}: expected a warp of ANTs (x, y, z, 1, 3) or FSL (x, y, z, 3), found shape {shape}, intent {intent}."
    )


def _fsl_field(
    vectors: Float64[np.ndarray, "x y z 3"], image: Any, source: Grid, reference: Grid, path: Path
) -> DisplacementField:
    """Return FNIRT's field as displacements between worlds.

    ``world_source = A_s F_s^-1 (F_r A_r^-1 x + d(x))`` for a relative field; an absolute one holds the sum itself.
    Which of the two it is, is told as FSL does: subtracting the positions from an absolute field leaves less spread.
    """
    x, y, z = vectors.shape[:3]
    own = Grid((x, y, z), np.asarray(image.affine, dtype=np.float64))
    if not np.allclose(own.affine, reference.affine, atol=1e-3) or own.shape != reference.shape:
        raise FormatError(
            f"{path}: the warp lies on a grid of shape {own.shape}, the reference has {reference.shape} or another "
            "affine. Give the image that the warp was made for."
        )
    voxels = np.indices(own.shape, dtype=np.float64).reshape(3, -1)
    here = _apply(_fsl_scaling(own), voxels).T.reshape(x, y, z, 3)
    relative = vectors - here
    absolute = vectors.std(axis=(0, 1, 2)).sum() > relative.std(axis=(0, 1, 2)).sum()
    there = vectors if absolute else here + vectors
    to_world = source.affine @ np.linalg.inv(_fsl_scaling(source))
    world = _apply(to_world, there.reshape(-1, 3).T) - _apply(own.affine, voxels)
    return DisplacementField(
        np.ascontiguousarray(world.T.reshape(x, y, z, 3), dtype=np.float32), own.affine, outside="missing"
    )


def _apply(matrix: Float64[np.ndarray, "4 4"], points: Float64[np.ndarray, "3 n"]) -> Float64[np.ndarray, "3 n"]:
    return np.asarray(matrix[:3, :3] @ points + matrix[:3, 3:], dtype=np.float64)
