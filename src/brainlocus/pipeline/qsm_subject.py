"""One scan of `qsm run`: read, reconstruct, measure, write.

A scan is the unit of work: its files are written to a folder of its own, renamed into the dataset one by one, and last
comes ``*_qsm.json``, which says how they were made. A scan without that file, or whose file was made from other inputs
or settings, is done again.

A session may hold several series: runs, acquisitions, coils beside their combination. Each has maps of its own, under
a name of its own (`name_scans`); the steps above choose the one that is measured.
"""

import errno
import hashlib
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32

from brainlocus._version import __version__
from brainlocus.core import (
    AlignmentError,
    BrainlocusError,
    ChannelSource,
    FormatError,
    GradientEcho,
    Grid,
    Mask,
    Parcellation,
    ResultTable,
    SchemaError,
    Volume,
    check_same_grid,
    iter_channels,
)
from brainlocus.core.errors import nearest
from brainlocus.core.transforms import Transform
from brainlocus.images.idp import choroid_plexus, lateral_ventricles, subject_idps, white_matter
from brainlocus.images.qsm import (
    REFERENCES,
    QsmMaps,
    QsmSettings,
    Tissue,
    combine_channels,
    correct_r2star,
    magnitude_mask,
    reconstruct,
    residual_wraps,
    susceptibility_weighting,
)
from brainlocus.io import (
    GradientEchoFiles,
    atomic_path,
    digest_files,
    find_derivative,
    read_gradient_echo,
    read_label_names,
    read_parcellation,
    read_transform,
    read_volume,
    write_derivative,
    write_results,
)
from brainlocus.io.echo_plan import ReadSettings
from brainlocus.io.gradient_echo import LoadedSeries, count_channels, open_channels, read_brain_mask
from brainlocus.io.nifti import sidecar_path
from brainlocus.io.nifti_header import NiftiHeader
from brainlocus.numerics.resample import resample_labels, resample_mask
from brainlocus.pipeline.figures.qsm import draw_scan_page
from brainlocus.pipeline.registration import register

__all__ = ["ScanRecord", "ScanTask", "current_record", "name_scans", "plan_scan", "read_record", "run_scan"]

PPM_TO_PPB = 1e3


@dataclass(frozen=True, slots=True)
class ScanTask:
    """One scan and how to treat it: small and picklable."""

    files: GradientEchoFiles
    stem: str
    """Beginning of the names of its outputs."""
    out: Path
    """The derivatives dataset."""
    settings: QsmSettings
    reading: ReadSettings
    parameters: Mapping[str, Any]
    """What the user chose, for the record and its key."""
    mask: Path | None
    segmentation: Path | None
    lesions: Path | None
    transform: Path | None
    """From the segmentation's space to the scan's, where they differ."""
    anatomical: Path | None
    """T1-weighted image to register where a transform is needed and missing; None: do not register."""
    keep: bool
    """Write fields, masks and reliability too."""
    weighted_image: bool
    """Write the susceptibility-weighted image."""
    workers: int
    problem: str = ""
    """Why mask, segmentation or transform could not be looked up; the scan fails with it."""

    @property
    def folder(self) -> Path:
        """Where the outputs go."""
        session = self.files.session_id
        return self.out / self.files.participant_id / (session or "") / "anat"

    @property
    def record_path(self) -> Path:
        """The file that says that the scan is done."""
        return self.folder / f"{self.stem}_qsm.json"


@dataclass(frozen=True, slots=True)
class ScanRecord:
    """What became of a scan."""

    participant_id: str
    session_id: str
    scan: str
    """Beginning of the names of its files."""
    suffix: str
    """Of its images: ``MEGRE`` ..."""
    status: str
    """``ok``, ``check`` (with flags that make the map unfit without a look) or ``failed``."""
    reason: str
    key: str
    version: str
    parameters: Mapping[str, Any]
    inputs: Mapping[str, str]
    """Name to SHA-256."""
    counts: Mapping[str, float]
    flags: tuple[str, ...]
    page: str
    """Quality page, relative to the dataset; empty for a failed scan."""


def read_record(path: Path) -> ScanRecord | None:
    """Return the record of a finished scan, or None where there is none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return ScanRecord(**{**content, "flags": tuple(content["flags"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def name_scans(series: Sequence[GradientEchoFiles]) -> list[str]:
    """Return the beginning of the names of every series' outputs, each once.

    That of its files. Where two series of a session differ in nothing but their suffix (``MEGRE`` and ``swi``), the
    first keeps it and the other has its suffix in the entity ``acq``.

    Examples
    --------
    >>> megre = GradientEchoFiles("sub-01", None, (), "MEGRE", ())
    >>> name_scans([megre, GradientEchoFiles("sub-01", None, (), "swi", ())])
    ['sub-01', 'sub-01_acq-swi']
    """
    names: list[str] = []
    taken: set[str] = set()
    for files in series:
        name = files.stem
        if name in taken:
            others = tuple((key, value) for key, value in files.entities if key != "acq")
            name = replace(files, entities=(("acq", f"{files.acquisition or ''}{files.suffix}"), *others)).stem
        taken.add(name)
        names.append(name)
    return names


def plan_scan(files: GradientEchoFiles, folders: Mapping[str, Path], *, register: bool, **given: Any) -> ScanTask:
    """Return the task of a scan, with its mask, segmentation and transform looked up.

    An image with the scan's own ``acq`` and ``run`` is preferred; one of another run is not taken for a mask.

    Parameters
    ----------
    folders
        Derivatives (or raw) datasets with ``masks``, ``segmentations`` and ``transforms``.
    register
        Look for a T1-weighted image beside the segmentations.
    given
        The other fields of the task.
    """
    found: dict[str, Any] = dict.fromkeys(("mask", "segmentation", "lesions", "transform", "anatomical"))
    problem = ""
    try:
        found["mask"] = _find(folders["masks"], files, "mask", {"desc": "brain"})
        found["segmentation"] = _find(folders["segmentations"], files, "dseg", {})
        found["lesions"] = _find(folders["segmentations"], files, "mask", {"label": "lesion"})
        found["transform"] = _find_transform(folders["transforms"], files)
        found["anatomical"] = _find(folders["segmentations"], files, "T1w", {}) if register else None
    except BrainlocusError as error:
        problem = str(error)
    return ScanTask(files, problem=problem, **found, **given)


def _find(folder: Path, files: GradientEchoFiles, suffix: str, entities: Mapping[str, str]) -> Path | None:
    """Return a derivative of the scan itself, else one of its session or participant that is of no other run."""
    own = {key: value for key, value in files.entities if key in ("acq", "run")}
    if own:
        wanted = {**entities, **own}
        path = find_derivative(folder, files.participant_id, files.session_id, suffix=suffix, entities=wanted)
        if path is not None:
            return path
    path = find_derivative(folder, files.participant_id, files.session_id, suffix=suffix, entities=entities)
    run = None if path is None else re.search(r"_run-(\d+)_", path.name)
    # A mask lies on the scan's own grid; a segmentation's run is that of its T1-weighted image.
    other = run is not None and files.run is not None and int(run[1]) != int(files.run)
    return None if other and suffix == "mask" else path


def _find_transform(folder: Path, files: GradientEchoFiles) -> Path | None:
    """Return the transform of a scan's T1-weighted image to the scan: ``*_from-T1w_to-<suffix>_mode-image_xfm.*``."""
    places = [folder / files.participant_id / part / "anat" for part in (files.session_id or "", "")]
    for place in places:
        for target in (files.suffix, "MEGRE", "swi", "SWI"):
            found = sorted(place.glob(f"*_from-T1w_to-{target}_mode-image_xfm.*"))
            found = [path for path in found if not path.name.endswith(".json")]
            if len(found) > 1 and files.run is not None:
                found = [path for path in found if f"_run-{files.run}_" in path.name] or found
            if found:
                return found[0]
    return None


def run_scan(task: ScanTask) -> ScanRecord:
    """Reconstruct one scan, write its files and return its record, which says what is wrong with its input, if any.

    Whatever goes wrong with a scan is a status of it, also an error of ours, so that a cohort goes on; only what would
    stop all others too, such as a full disk or an interruption, is raised.
    """
    work = task.out / f".{task.stem}.work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    inputs: dict[str, str] = {}
    counts: dict[str, float] = {}
    flags: tuple[str, ...] = ()
    page = ""
    try:
        try:
            inputs = _digests(task)
            status, counts, flags, n_failures = _process(task, work)
            reason = "; ".join(flags[:n_failures])
            page = (task.folder / f"{task.stem}_qc.html").relative_to(task.out).as_posix()
        except Exception as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            status, reason = "failed", _explained(error)
            for path in work.iterdir():  # what was written before the failure
                path.unlink()
        record = ScanRecord(
            participant_id=task.files.participant_id,
            session_id=task.files.session_id or "",
            scan=task.stem,
            suffix=task.files.suffix,
            status=status,
            reason=reason,
            key=scan_key(task.parameters, inputs),
            version=__version__,
            parameters=task.parameters,
            inputs=inputs,
            counts=counts,
            flags=flags,
            page=page,
        )
        _publish(task, work, record)
        return record
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _explained(error: Exception) -> str:
    """Return what a failed scan's reason says; an error that is not about input or memory is called a bug."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, MemoryError):
        return f"Out of memory ({text}). Give fewer --threads, so that fewer scans are done at once."
    if isinstance(error, (BrainlocusError, ValueError, OSError)):
        return text
    return f"A bug, please report it: {type(error).__name__}: {text}"


def scan_key(parameters: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """Return the SHA-256 of what a scan's outputs depend on."""
    content = {"version": __version__, "parameters": dict(parameters), "inputs": dict(inputs)}
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def current_record(task: ScanTask) -> ScanRecord | None:
    """Return the record of a scan that is done with these inputs and settings, without an error; None otherwise."""
    record = read_record(task.record_path)
    if record is None or record.status == "failed" or record.key != scan_key(task.parameters, _digests(task)):
        return None
    return record


def _digests(task: ScanTask) -> dict[str, str]:
    """Return the SHA-256 of every file the outputs depend on, by the shortest end of its path that is its own."""
    others = (task.mask, task.segmentation, task.lesions, task.transform, task.anatomical)
    files = [*task.files.paths, *(path for path in others if path is not None)]
    if task.segmentation is not None:
        files.append(sidecar_path(task.segmentation))
    found: dict[str, str] = {}
    for path in files:
        if path.is_file():
            depth = next(d for d in range(1, len(path.parts) + 1) if "/".join(path.parts[-d:]) not in found)
            found["/".join(path.parts[-depth:])] = digest_files(path, [path]).sha256
    names = {} if task.segmentation is None else read_label_names(task.segmentation)
    if names:
        found["names of labels"] = hashlib.sha256(json.dumps(sorted(names.items())).encode()).hexdigest()
    return found


def _is_of_scan(name: str, stem: str) -> bool:
    """Return whether a file is an output of this scan, rather than of one with further entities.

    Examples
    --------
    >>> names = ("sub-01_mask.json", "sub-01_desc-mask1_mask.json", "sub-01_run-2_mask.json")
    >>> [_is_of_scan(name, "sub-01") for name in names]
    [True, True, False]
    """
    entities = name.removeprefix(f"{stem}_").split("_")[:-1]
    return name.startswith(f"{stem}_") and all(entity.startswith("desc-") for entity in entities)


def _publish(task: ScanTask, work: Path, record: ScanRecord) -> None:
    """Move the files of a scan into place, in place of those of an earlier run; the record comes last."""
    task.folder.mkdir(parents=True, exist_ok=True)
    task.record_path.unlink(missing_ok=True)
    for old in sorted(task.folder.iterdir()):
        if _is_of_scan(old.name, task.stem):
            old.unlink()
    for path in sorted(work.iterdir()):
        path.replace(task.folder / path.name)
    with atomic_path(task.record_path) as partial:
        content = json.dumps(asdict(record), indent=1, default=str, allow_nan=False)
        partial.write_text(content + "\n", encoding="utf-8")


def _process(task: ScanTask, work: Path) -> tuple[str, dict[str, float], tuple[str, ...], int]:
    """Write everything but the record; return status, numbers, flags, and how many of the flags are failures."""
    if task.problem:
        raise FormatError(task.problem)
    loaded, quality, offset_removed = _load(task)
    series = loaded.series
    grid = series.acquisition.grid
    flags = [note.text for note in loaded.notes if note.is_warning]
    brain, approximate = _brain(task, series, flags)
    labels, lesions = _labels(task, series), _lesions(task, series)
    maps = reconstruct(
        series,
        brain,
        task.settings,
        tissue=_tissue(labels, task.settings.reference),
        offset_removed=offset_removed,
        workers=task.workers,
    )
    counts = {**maps.counts, **{k: float(v) for k, v in loaded.counts.items()}}
    if quality is not None:
        counts["combination_quality"] = quality
        if quality < 0.95:
            flags.append(f"Coils agree on the phase to {quality:.2f} only, expected 0.95 or more.")
    if approximate:
        flags.append("No brain mask was given: it was made from the magnitude, which is approximate.")
    counts |= _figures_of_merit(maps)
    flags = [*maps.failures, *maps.flags, *flags]
    stem = task.stem
    sidecar = _sidecar(task, maps, loaded.metadata, approximate)
    _write_maps(task, work, maps, sidecar, loaded.header)
    if task.weighted_image:
        weighted = susceptibility_weighting(
            series.phase_rad[-1], series.magnitude[-1], maps.brain, series.acquisition.voxel_size_mm
        )
        swi = Volume(weighted.weighted, grid.affine, "susceptibility_weighted")
        write_derivative(swi, work / f"{stem}_swi.nii.gz", sidecar, like=loaded.header)
    rows = _measure(task, maps, labels, lesions)
    if rows is not None:
        write_results(rows, work / f"{stem}_regions.tsv")
        flags += _sign_check(rows)
    n_failures = len(maps.failures)
    page = draw_scan_page(
        stem,
        maps,
        series,
        rows,
        counts=counts,
        fail=flags[:n_failures],
        warn=flags[n_failures:],
        made_with=_made_with(task),
    )
    (work / f"{stem}_qc.html").write_text(page, encoding="utf-8")
    counts = {name: value for name, value in counts.items() if np.isfinite(value)}
    return ("check" if maps.failures else "ok"), counts, tuple(flags), n_failures


def _load(task: ScanTask) -> tuple[LoadedSeries, float | None, bool]:
    """Return the series, the quality of its combination (None: it was combined), and whether its offset is removed."""
    if count_channels(task.files) == 1:
        return read_gradient_echo(task.files, task.reading), None, False
    channels = open_channels(task.files, task.reading)
    grid = channels.acquisition.grid
    if task.mask is not None:
        inside = read_brain_mask(task.mask, grid)[0].data
    else:
        inside = magnitude_mask(_sum_of_squares(channels), channels.acquisition.voxel_size_mm)
    combined = combine_channels(channels, inside, bipolar=task.settings.bipolar)
    counts = {"voxels": combined.series.valid.size, "channels": channels.n_channels}
    loaded = LoadedSeries(combined.series, channels.notes, counts, channels.metadata, channels.header)
    return loaded, combined.median_quality, combined.status.startswith("removed")


def _sum_of_squares(channels: ChannelSource) -> Float32[np.ndarray, "x y z"]:
    """Return the magnitude of the first echo over all coils."""
    total = np.zeros(channels.acquisition.shape, dtype=np.float32)
    for channel in iter_channels(channels):
        total += channel.magnitude[0] ** 2
    return np.sqrt(total)


def _brain(task: ScanTask, series: GradientEcho, flags: list[str]) -> tuple[Bool[np.ndarray, "x y z"], bool]:
    """Return mask 1, and whether it is only approximate."""
    if task.mask is None:
        return magnitude_mask(series.magnitude[0], series.acquisition.voxel_size_mm), True
    mask, notes = read_brain_mask(task.mask, series.acquisition.grid)
    flags += [note.text for note in notes]
    return mask.data, False


def _chain(task: ScanTask, found: Grid, series: GradientEcho, what: Path) -> tuple[Transform, ...]:
    """Return the chain from the scan's points to those of an image of the segmentation's space; empty for one grid.

    Raises
    ------
    AlignmentError
        Another grid, no transform and nothing to register.
    """
    grid = series.acquisition.grid
    try:
        check_same_grid(found, grid, what=str(what))
    except AlignmentError as error:
        if task.transform is not None:
            # A transform of images from A to B says where points of B lie in A: what resampling onto B needs.
            return read_transform(task.transform, source=found, reference=grid)
        if task.anatomical is not None:
            magnitude = Volume(series.magnitude[0], grid.affine, "magnitude")
            return register(magnitude, read_volume(task.anatomical, quantity="T1w"))
        raise AlignmentError(
            f"{what} has another grid than the scan, and there is no transform. Expected "
            f"*_from-T1w_to-{task.files.suffix}_mode-image_xfm.(mat|txt|h5|nii.gz) of {task.files.participant_id} in "
            "--transforms, labels on the scan's grid, or --registration ants."
        ) from error
    return ()


def _labels(task: ScanTask, series: GradientEcho) -> Parcellation | None:
    """Return the segmentation on the scan's grid."""
    if task.segmentation is None:
        return None
    found = read_parcellation(task.segmentation)
    if not found.names:
        # The table of a whole dataset, by the inheritance principle.
        found = replace(found, names=read_label_names(task.segmentation))
    chain = _chain(task, found.grid, series, task.segmentation)
    return resample_labels(found, series.acquisition.grid, chain) if chain else found


def _lesions(task: ScanTask, series: GradientEcho) -> Mask | None:
    """Return the mask of lesions on the scan's grid; one without a voxel is a mask, too."""
    if task.lesions is None:
        return None
    image = read_volume(task.lesions, quantity="mask")
    found = Mask(np.nan_to_num(image.data) > 0.5, image.affine)
    chain = _chain(task, found.grid, series, task.lesions)
    return resample_mask(found, series.acquisition.grid, chain) if chain else found


def _tissue(labels: Parcellation | None, reference: str) -> Tissue:
    """Return what the segmentation says of the regions to refer to.

    Raises
    ------
    SchemaError
        The reference is a region that it does not have; the nearest name is in the message.
    """
    named = reference not in REFERENCES
    if labels is None:
        if named or reference == "white-matter":
            raise SchemaError(f"--reference {reference}: expected a segmentation with this region, found none.")
        return Tissue()
    ventricles, plexus, white = (find(labels).data for find in (lateral_ventricles, choroid_plexus, white_matter))
    region = None
    if named:
        wanted = [label for label, name in labels.names.items() if name == reference]
        if not wanted:
            known = list(labels.names.values())
            raise SchemaError(f"--reference {reference}: no such region.{nearest(reference, known)}")
        region = np.isin(labels.labels, wanted)
    return Tissue(
        ventricles if ventricles.any() else None,
        plexus if plexus.any() else None,
        white if white.any() else None,
        region,
    )


def _figures_of_merit(maps: QsmMaps) -> dict[str, float]:
    """Return what a cohort's scans are compared by."""
    chi = maps.chi_ppm[maps.mask]
    found = {
        "residual_ppb": PPM_TO_PPB * float(np.sqrt(np.mean(maps.residual_ppm[maps.mask].astype(np.float64) ** 2))),
        "chi_sd_ppb": PPM_TO_PPB * float(chi.std(dtype=np.float64)),
        "whole_brain_ppb": PPM_TO_PPB * float(chi.mean(dtype=np.float64)),
        "residual_wraps": float(residual_wraps(_phase_at_last_echo(maps)[None], maps.mask)[0]),
    }
    if maps.reference is not None:
        found |= {
            "reference_ppb": PPM_TO_PPB * maps.reference.value_ppm,
            "reference_sd_ppb": PPM_TO_PPB * maps.reference.standard_deviation_ppm,
            "reference_voxels": float(maps.reference.n_voxels),
        }
    if maps.t2star_s is not None:
        found["t2star_median_ms"] = 1e3 * _median(maps.t2star_s[maps.brain])
    if maps.gradient_hz is not None:
        found["gradient_median_hz"] = _median(np.abs(maps.gradient_hz[maps.brain]))
    return found


def _median(values: Float[np.ndarray, " n"]) -> float:
    """Return the median of the finite values; NaN where there are none."""
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else float("nan")


def _phase_at_last_echo(maps: QsmMaps) -> Float32[np.ndarray, "x y z"]:
    acquisition = maps.acquisition
    scale = 2 * np.pi * acquisition.hz_per_ppm * acquisition.echo_time_s[-1]
    return maps.total_field.field_ppm * np.float32(scale)


def _sidecar(task: ScanTask, maps: QsmMaps, metadata: Mapping[str, Any], approximate: bool) -> dict[str, Any]:
    acquisition = maps.acquisition
    kept = {k: metadata[k] for k in ("Manufacturer", "ManufacturersModelName", "SequenceName") if k in metadata}
    return {
        **kept,
        "Sources": [path.name for path in task.files.paths],
        "EchoTime": list(acquisition.echo_time_s),
        "MagneticFieldStrength": acquisition.field_strength_t,
        "B0Direction": list(acquisition.b0_direction),
        "VoxelSize": list(acquisition.voxel_size_mm),
        "Reference": maps.reference_name,
        "ReferenceValuePpm": None if maps.reference is None else maps.reference.value_ppm,
        "BrainMask": "approximate, from the magnitude" if approximate else str(task.mask and task.mask.name),
        "Parameters": dict(task.parameters),
        "GeneratedBy": {"Name": "brainlocus qsm run", "Version": __version__},
    }


def _write_maps(task: ScanTask, work: Path, maps: QsmMaps, sidecar: Mapping[str, Any], header: NiftiHeader) -> None:
    affine = maps.acquisition.grid.affine

    def write(name: str, data: Float32[np.ndarray, "x y z"], quantity: str, unit: str, **more: object) -> None:
        path = work / f"{task.stem}_{name}.nii.gz"
        write_derivative(Volume(data, affine, quantity, unit), path, {**sidecar, **more}, like=header)

    def write_mask(name: str, data: Bool[np.ndarray, "x y z"], meaning: str) -> None:
        path = work / f"{task.stem}_{name}.nii.gz"
        write_derivative(Mask(data, affine), path, {**sidecar, "Description": meaning}, like=header)

    if maps.reference is not None and maps.reference.status == "ok":
        write("Chimap", maps.reference.chi_ppm, "susceptibility", "ppm")
    write("desc-unreferenced_Chimap", maps.chi_ppm, "susceptibility", "ppm", Reference="none", ReferenceValuePpm=None)
    write_mask("mask", maps.mask, "Where susceptibility is known (mask 3)")
    write_mask("desc-reference_mask", maps.reference_region, f"Reference region: {maps.reference_name}")
    if maps.t2star_s is not None and maps.r2star is not None:
        write("T2starmap", maps.t2star_s, "T2star", "s")
        write("R2starmap", maps.r2star, "R2star", "1/s")
    if maps.gradient_hz is not None and maps.dephasing_rate is not None and maps.r2star is not None:
        write("desc-fieldgradient_fieldmap", maps.gradient_hz, "through_slice_gradient", "Hz")
        corrected = correct_r2star(maps.r2star, maps.dephasing_rate, maps.gradient_hz)
        write("desc-gradientcorrected_R2starmap", corrected, "R2star", "1/s")
    if not task.keep:
        return
    per_ppm = maps.acquisition.hz_per_ppm
    hz = np.float32(per_ppm)
    write("desc-total_fieldmap", maps.total_field.field_ppm * hz, "total_field", "Hz", HzPerPpm=per_ppm)
    write("desc-local_fieldmap", maps.local_field_ppm * hz, "local_field", "Hz", HzPerPpm=per_ppm)
    deviation = maps.total_field.standard_deviation_ppm
    noise = np.where(np.isfinite(deviation), deviation * hz, np.float32(np.nan))
    write("desc-fieldnoise_fieldmap", noise, "standard_deviation_of_field", "Hz", HzPerPpm=per_ppm)
    for echo, image in enumerate(maps.reliability):
        write(f"desc-reliabilityE{echo + 1}_probseg", image, "phase_reliability", "")
    write_mask("desc-mask1_mask", maps.brain, "Brain, as given, where there is a signal")
    write_mask("desc-mask2_mask", maps.reliable, "Brain with reliable phase")


def _measure(task: ScanTask, maps: QsmMaps, labels: Parcellation | None, lesions: Mask | None) -> ResultTable | None:
    """Return the rows of all regions; None without a segmentation or without a referenced map."""
    if labels is None or (maps.reference is not None and maps.reference.status != "ok"):
        return None
    grid = maps.acquisition.grid
    volumes = {"QSM": Volume(maps.referenced_ppm, grid.affine, "susceptibility", "ppm")}
    if maps.t2star_s is not None:
        volumes["T2star"] = Volume(maps.t2star_s, grid.affine, "T2star", "s")
    if maps.dephasing_rate is not None:
        volumes["fieldgradient"] = Volume(maps.dephasing_rate, grid.affine, "dephasing_rate", "1/s")
    white = white_matter(labels)
    return subject_idps(
        volumes,
        labels,
        Mask(maps.mask, grid.affine),
        participant_id=task.files.participant_id,
        session_id=task.files.session_id or "",
        lesions=lesions,
        white_matter=white if lesions is not None and white.data.any() else None,
    )


def _sign_check(rows: ResultTable) -> list[str]:
    """Return a flag where the globus pallidus comes out below the fluid: the phase has probably the other sign."""
    pallidum = (rows["measure"] == "QSM") & np.char.endswith(rows["region"], "pallidum")
    if _median(rows["median"][pallidum]) < 0:
        return ["The pallidum is diamagnetic against the reference: is the phase's sign inverted (--invert-phase)?"]
    return []


def _made_with(task: ScanTask) -> dict[str, object]:
    """Return what the last table of the page shows."""
    shown = {name: value for name, value in task.parameters.items() if value not in (None, [], False)}
    files = (task.mask, task.segmentation, task.lesions, task.transform, task.anatomical)
    named = ("brain mask", "segmentation", "lesions", "transform", "registered image")
    shown |= {name: path.name for name, path in zip(named, files, strict=True) if path is not None}
    return {"brainlocus": __version__, **shown, "images": [path.name for path in task.files.paths]}
