"""Small BIDS datasets of gradient-echo series for tests: a few voxels, a field that wraps, truth known."""

import json
from pathlib import Path
from typing import Any, Literal

import nibabel
import numpy as np

Layout = Literal["files", "stacked", "5-D", "coils"]
Stored = Literal["radians", "siemens", "siemens-signed", "degrees"]

AXIAL = np.diag([1.0, 1.0, 1.0, 1.0])


def wrap(phase):
    return np.angle(np.exp(1j * phase))


def series(shape=(8, 9, 7), echo_time_s=(0.0094, 0.020), seed=0):
    """Return wrapped phase (rad, span 2 pi) and magnitude of a smooth field, both (echoes, x, y, z) float32."""
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    a, b, c = rng.uniform(0.5, 1.5, 3)
    field_hz = 60 * (a * x**2 + b * y - c * z * x) + rng.normal(0, 40, shape)
    r2star = 20 + 10 * np.exp(-(x**2 + y**2 + z**2))
    phase = np.stack([wrap(2 * np.pi * field_hz * te + 0.3) for te in echo_time_s])
    for echo in phase:  # the whole range occurs, as in air
        echo.flat[0], echo.flat[1] = -np.pi, np.pi
    noise = rng.uniform(0.7, 1.3, shape)
    magnitude = np.stack([1000 * noise * np.exp(-te * r2star) for te in echo_time_s])
    return phase.astype(np.float32), magnitude.astype(np.float32)


def coils(phase, magnitude, n_channels, seed=0):
    """Return (channels, echoes, x, y, z) phase and magnitude with an offset of each coil."""
    rng = np.random.default_rng(seed + 1)
    offsets = rng.uniform(-np.pi, np.pi, n_channels)
    weights = rng.uniform(0.5, 1.0, n_channels)
    many = np.stack([wrap(phase + offset) for offset in offsets]).astype(np.float32)
    many[:, :, 0, 0, 0], many[:, :, 0, 0, 1] = -np.pi, np.pi
    return many, np.stack([magnitude * w for w in weights]).astype(np.float32)


def image_of(data, affine, *, slope=None, intercept=0.0):
    """Return a NIfTI image in scanner coordinates (sform and qform code 1, mm)."""
    image = nibabel.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm", "sec")
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    if slope is not None:
        image.header.set_slope_inter(slope, intercept)
    return image


def stored_phase(phase, affine, stored: Stored = "radians"):
    """Return the image of a phase in radians as scanners store it."""
    if stored == "siemens":  # 0 .. 4095
        return image_of(np.clip(np.rint((phase + np.pi) * 4096 / (2 * np.pi)), 0, 4095).astype(np.uint16), affine)
    if stored == "siemens-signed":  # -4096 .. 4094, slope 2, intercept -4096
        values = np.clip(np.rint((phase + np.pi) * 4096 / (2 * np.pi)), 0, 4095).astype(np.uint16)
        return image_of(values, affine, slope=2.0, intercept=-4096.0)
    if stored == "degrees":
        return image_of(np.rint(np.degrees(phase)).astype(np.int16), affine)
    return image_of(phase.astype(np.float32), affine)


def sidecar(echo_time_s, field_strength_t=3.0, **more: Any):
    return {"EchoTime": echo_time_s, "MagneticFieldStrength": field_strength_t, **more}


def write_json(path: Path, content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def save(image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)


def write_series(
    folder: Path,
    participant: str,
    phase,
    magnitude,
    *,
    affine=AXIAL,
    echo_time_s=(0.0094, 0.020),
    field_strength_t=3.0,
    session: str = "",
    entities: str = "",
    suffix: str = "MEGRE",
    layout: Layout = "files",
    stored: Stored = "radians",
    extension: str = ".nii.gz",
    metadata: dict[str, Any] | None = None,
) -> Path:
    """Write one series and return its ``anat`` folder.

    Parameters
    ----------
    phase, magnitude
        (echoes, x, y, z), or (channels, echoes, x, y, z) for the layouts ``5-D`` and ``coils``.
    layout
        One file an echo; echoes stacked along the 4th axis; also coils along the 5th; or one file a coil and echo.
    """
    place = folder / f"sub-{participant}" / (f"ses-{session}" if session else "") / "anat"
    start = "_".join(part for part in (f"sub-{participant}", f"ses-{session}" if session else "", entities) if part)
    more = metadata or {}
    for part, data in (("phase", phase), ("mag", magnitude)):
        units = {"Units": "rad" if stored == "radians" else "arbitrary"} if part == "phase" else {}

        def image(values, part=part):
            return stored_phase(values, affine, stored) if part == "phase" else image_of(values, affine)

        def put(name, values, times, units=units, image=image):
            save(image(values), place / f"{name}{extension}")
            write_json(place / f"{name}.json", sidecar(times, field_strength_t, **units, **more))

        if layout == "stacked":
            put(f"{start}_part-{part}_{suffix}", np.moveaxis(data, 0, -1), list(echo_time_s))
        elif layout == "5-D":
            put(f"{start}_part-{part}_{suffix}", np.moveaxis(data, (0, 1), (-1, -2)), list(echo_time_s))
        else:
            for k, te in enumerate(echo_time_s):
                if layout == "files":
                    put(f"{start}_echo-{k + 1}_part-{part}_{suffix}", data[k], te)
                for c in range(len(data)) if layout == "coils" else ():
                    put(f"{start}_echo-{k + 1}_part-{part}_coil-{c + 1:02d}_{suffix}", data[c, k], te)
    return place


def write_description(folder: Path, name: str = "test", dataset_type: str = "raw") -> None:
    write_json(
        folder / "dataset_description.json", {"Name": name, "BIDSVersion": "1.10.0", "DatasetType": dataset_type}
    )


def write_bids(
    folder: Path,
    *,
    participants=("01",),
    sessions=("",),
    shape=(8, 9, 7),
    echo_time_s=(0.0094, 0.020),
    n_channels: int = 0,
    layout: Layout = "files",
    masks: bool = False,
    seed: int = 0,
    **options: Any,
) -> Path:
    """Write a dataset and return its folder; `options` go to `write_series`.

    Parameters
    ----------
    n_channels
        0 for combined images; else for the layouts ``5-D`` and ``coils``.
    masks
        Also write ``derivatives/masks/sub-*/anat/*_desc-brain_mask.nii.gz``, all but the rim.
    """
    write_description(folder)
    for k, participant in enumerate(participants):
        for session in sessions:
            phase, magnitude = series(shape, echo_time_s, seed + k)
            if n_channels:
                phase, magnitude = coils(phase, magnitude, n_channels, seed + k)
            write_series(
                folder,
                participant,
                phase,
                magnitude,
                echo_time_s=echo_time_s,
                session=session,
                layout=layout,
                **options,
            )
            if masks:
                inside = np.zeros(shape, dtype=np.uint8)
                inside[1:-1, 1:-1, 1:-1] = 1
                stem = "_".join(part for part in (f"sub-{participant}", f"ses-{session}" if session else "") if part)
                place = folder / "derivatives/masks" / f"sub-{participant}" / (f"ses-{session}" if session else "")
                image = image_of(inside, options.get("affine", AXIAL))
                save(image, place / "anat" / f"{stem}_desc-brain_mask.nii.gz")
    if masks:
        write_description(folder / "derivatives/masks", "masks", "derivative")
    return folder


def write_head(
    folder: Path,
    head,
    participant: str = "01",
    *,
    session: str = "",
    n_channels: int = 0,
    stored: Stored = "siemens-signed",
    truth: bool = True,
    **options: Any,
) -> Path:
    """Write a `SimulatedHead` as a subject of a dataset, and return the dataset.

    Parameters
    ----------
    n_channels
        0 for combined images, else one file a coil.
    truth
        Also write ``derivatives/truth``: brain mask, labels with ``dseg.tsv``, susceptibility and local field.
    """
    if not (folder / "dataset_description.json").is_file():
        write_description(folder)
    acquisition = head.acquisition
    affine = acquisition.grid.affine
    if n_channels:
        source = head.channels(n_channels)
        read = [source.read(c) for c in range(n_channels)]
        phase, magnitude = np.stack([c.phase_rad for c in read]), np.stack([c.magnitude for c in read])
    else:
        phase, magnitude = head.series.phase_rad, head.series.magnitude
    write_series(
        folder,
        participant,
        phase,
        magnitude,
        affine=affine,
        echo_time_s=acquisition.echo_time_s,
        field_strength_t=acquisition.field_strength_t,
        session=session,
        layout=options.pop("layout", "coils" if n_channels else "files"),
        stored=stored,
        **options,
    )
    if truth:
        derived = folder / "derivatives/truth"
        write_description(derived, "truth", "derivative")
        names = "".join(f"{label}\t{name}\n" for label, name in sorted(head.labels.names.items()))
        (derived / "dseg.tsv").write_text(f"index\tname\n{names}")
        stem = "_".join(part for part in (f"sub-{participant}", f"ses-{session}" if session else "") if part)
        place = derived / f"sub-{participant}" / (f"ses-{session}" if session else "") / "anat"
        for ending, data in (
            ("desc-brain_mask", head.brain_mask.astype(np.uint8)),
            ("dseg", head.labels.labels.astype(np.int16)),
            ("Chimap", head.chi_ppm),
            ("desc-local_fieldmap", head.local_field_ppm),
        ):
            save(image_of(data, affine), place / f"{stem}_{ending}.nii.gz")
    return folder
