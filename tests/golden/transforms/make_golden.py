"""Makes the files of this folder with ANTs (antspyx 0.6.3) and FMRIB's fslpy 3.29.1; run in an environment with both.

A small head-like image is registered to a turned and bent copy by ANTs, which writes its transforms in all its formats;
fslpy writes a FLIRT matrix and FNIRT fields (relative and absolute, between images of unlike handedness). What the two
programs make of 40 points, and of the moving image, is in ``golden.npz``: world mm, RAS.
"""

import shutil
import tempfile
from pathlib import Path

import ants
import fsl.transform.fnirt as fnirt
import nibabel
import numpy as np
from fsl.data.image import Image
from fsl.transform import affine as fslaffine
from fsl.transform import flirt, nonlinear

HERE = Path(__file__).parent
LPS = np.array([-1.0, -1.0, 1.0])


def head(shape, affine, shift):
    """Return ellipsoids at world positions."""
    index = np.indices(shape).reshape(3, -1)
    points = affine[:3, :3] @ index + affine[:3, 3:] - np.array(shift)[:, None]
    image = np.zeros(points.shape[1])
    blobs = (((0, 0, 0), (22, 26, 20)), ((8, 5, 2), (5, 8, 6)), ((-9, -6, 4), (6, 5, 7)), ((2, -9, -8), (7, 4, 4)))
    for value, (centre, radii) in enumerate(blobs, 1):
        distance = (((points - np.array(centre)[:, None]) / np.array(radii)[:, None]) ** 2).sum(axis=0)
        image += value / (1 + np.exp(8 * (np.sqrt(distance) - 1)))
    return image.reshape(shape).astype(np.float32)


def rotation(degrees, axis):
    """Return a rotation about a world axis."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.eye(4)
    first, second = (a for a in range(3) if a != axis)
    turn[first, first] = turn[second, second] = c
    turn[first, second], turn[second, first] = -s, s
    return turn


def main():
    """Write everything."""
    rng = np.random.default_rng(7)
    work = Path(tempfile.mkdtemp())
    fixed_affine = np.diag([-4.0, 4.0, 4.0, 1.0])
    fixed_affine[:3, 3] = [32, -34, -30]
    moving_affine = rotation(8.0, 2) @ np.diag([3.5, 4.0, 5.0, 1.0])
    moving_affine[:3, 3] = [-30, -36, -34]
    fixed = head((17, 18, 16), fixed_affine, (0, 0, 0))
    moving = head((18, 18, 14), moving_affine, (3.0, -2.0, 1.5))
    nibabel.save(nibabel.Nifti1Image(fixed, fixed_affine), HERE / "fixed.nii.gz")
    nibabel.save(nibabel.Nifti1Image(moving, moving_affine), HERE / "moving.nii.gz")
    one, two = ants.image_read(str(HERE / "fixed.nii.gz")), ants.image_read(str(HERE / "moving.nii.gz"))
    found = ants.registration(
        one, two, "SyN", outprefix=str(work / "a_"), random_seed=1, reg_iterations=(20, 10), aff_shrink_factors=(1,),
        aff_smoothing_sigmas=(0,), aff_iterations=(200,), syn_sampling=16, aff_sampling=16,
    )  # fmt: skip
    warp, affine = found["fwdtransforms"]
    shutil.copy(warp, HERE / "ants1Warp.nii.gz")
    shutil.copy(affine, HERE / "ants0GenericAffine.mat")
    ants.write_transform(ants.read_transform(affine), str(HERE / "ants_affine.txt"))
    composite = ants.registration(
        one, two, "SyN", outprefix=str(work / "b_"), random_seed=1, reg_iterations=(20, 10), aff_shrink_factors=(1,),
        aff_smoothing_sigmas=(0,), aff_iterations=(200,), write_composite_transform=True, aff_sampling=16,
    )["fwdtransforms"]  # fmt: skip
    shutil.copy(composite, HERE / "ants_composite.h5")
    euler = ants.new_ants_transform(transform_type="Euler3DTransform", precision="double", dimension=3)
    euler.set_parameters(np.array([0.1, -0.2, 0.15, 3.0, -4.0, 5.0]))
    euler.set_fixed_parameters(np.array([2.0, 3.0, -1.0]))
    ants.write_transform(euler, str(HERE / "euler.mat"))
    points = rng.uniform(-18, 18, (40, 3))

    def by_ants(paths):
        transforms = [ants.read_transform(str(p)) for p in paths]
        out = []
        for point in points:
            here = point * LPS
            for transform in transforms:
                here = np.asarray(transform.apply_to_point(here))
            out.append(here * LPS)
        return np.array(out)

    def by_field(path, then):
        import pandas

        table = pandas.DataFrame(points * LPS, columns=["x", "y", "z"])
        moved = ants.apply_transforms_to_points(3, table, [str(path)], whichtoinvert=[False])
        return np.array([np.asarray(then.apply_to_point(p)) * LPS for p in moved[["x", "y", "z"]].to_numpy()])

    read = ants.read_transform(affine)
    # antsApplyTransformsToPoints goes from moving to fixed; given the fields alone it maps fixed points to moving.
    golden = {
        "points": points,
        "ants_affine": by_ants([affine]),
        "euler": by_ants([HERE / "euler.mat"]),
        "ants_warp": by_field(warp, read),
        "resampled_affine": ants.apply_transforms(one, two, [affine], interpolator="linear").numpy(),
        "resampled_warp": ants.apply_transforms(one, two, [warp, affine], interpolator="linear").numpy(),
        "resampled_composite": ants.apply_transforms(one, two, [composite], interpolator="linear").numpy(),
    }
    make_fsl(golden, rng, points, fixed, fixed_affine, moving, moving_affine)
    np.savez_compressed(HERE / "golden.npz", **golden)


def make_fsl(golden, rng, points, fixed, fixed_affine, moving, moving_affine):
    """Write a FLIRT matrix and FNIRT fields from the moving (right-handed) to the fixed (left-handed) image."""
    source, reference = Image(moving, xform=moving_affine), Image(fixed, xform=fixed_affine)
    world = rotation(6.0, 0) @ rotation(-4.0, 1)
    world[:3, 3] = [2.0, -3.0, 1.0]
    matrix = flirt.toFlirt(world, source, reference, "world", "world")
    flirt.writeFlirt(matrix, str(HERE / "flirt.mat"))
    back = fslaffine.invert(
        flirt.fromFlirt(flirt.readFlirt(str(HERE / "flirt.mat")), source, reference, "world", "world")
    )
    golden["flirt"] = fslaffine.transform(points, back)
    flipped = fixed_affine @ np.array([[-1.0, 0, 0, fixed.shape[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    right_handed = Image(fixed[::-1], xform=flipped)
    nibabel.save(nibabel.Nifti1Image(fixed[::-1], flipped), HERE / "fixed_flipped.nii.gz")
    for name, target in (("fnirt", reference), ("fnirt_flipped", right_handed)):
        index = np.indices(target.shape).reshape(3, -1).T
        smooth = 1.5 * np.sin(index / 4.0 + rng.uniform(0, 6, 3))
        here = fslaffine.transform(index, target.getAffine("voxel", "world"))
        there = fslaffine.transform(here, back) + smooth
        fsl = fslaffine.transform(there, source.getAffine("world", "fsl"))
        start = fslaffine.transform(index, target.getAffine("voxel", "fsl"))
        for kind, values in (("relative", fsl - start), ("absolute", fsl)):
            field = values.reshape(*target.shape, 3).astype(np.float32)
            header = nibabel.Nifti1Header()
            header["intent_code"] = 2006
            header.set_xyzt_units("mm")
            path = HERE / f"{name}_{kind}_warp.nii.gz"
            nibabel.save(nibabel.Nifti1Image(field, target.getAffine("voxel", "world"), header), path)
            transform = fnirt.readFnirt(str(path), source, target)
            assert isinstance(transform, nonlinear.DeformationField)
            assert transform.deformationType == kind
            at = here[::97]
            golden[f"{name}_{kind}_points"] = at
            golden[f"{name}_{kind}"] = transform.transform(at, "world", "world")


if __name__ == "__main__":
    main()
