"""``qsm run``: gradient-echo images of a BIDS dataset to susceptibility, T2* and measures of regions.

Written to OUT, a BIDS derivatives dataset::

    sub-*/[ses-*/]anat/*_Chimap.nii.gz                   susceptibility (ppm) relative to the reference
                       *_desc-unreferenced_Chimap.nii.gz
                       *_T2starmap.nii.gz, *_R2starmap.nii.gz
                       *_mask.nii.gz, *_desc-reference_mask.nii.gz
                       *_desc-fieldgradient_fieldmap.nii.gz, *_desc-gradientcorrected_R2starmap.nii.gz
                       *_space-*_Chimap.nii.gz, *_space-*_T2starmap.nii.gz    with --standard
                       *_regions.tsv, *_qc.html, *_qsm.json
    idps.tsv, idps_confounds.tsv, idps_adjusted.tsv, idps_regions.tsv
    qc.tsv, qc.html

OUT grows: every run adds its subjects, and tables and cohort page are made from all that are there. Scans are done in
parallel by the executor; one that cannot be done has a row in ``qc.tsv`` and does not stop the others.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import numpy as np
from pydantic import Field

from brainlocus.core import FormatError, ResultTable, SchemaError, concat_results
from brainlocus.core.errors import nearest
from brainlocus.images.qsm import (
    BACKGROUND_SETTINGS,
    INVERSION_SETTINGS,
    PRESETS,
    QsmSettings,
    SingleStepSettings,
    reconstruct_peak_bytes,
)
from brainlocus.io import (
    GradientEchoFiles,
    atomic_path,
    find_gradient_echoes,
    locked_folder,
    read_gradient_echo_peak_bytes,
    read_grid,
    read_results,
    write_dataset_description,
)
from brainlocus.io.bids import SUFFIXES
from brainlocus.io.echo_plan import ReadSettings
from brainlocus.pipeline.config import CommaFloats, CommaList, InputPath, InputTree, Labels, Positional, StepConfig
from brainlocus.pipeline.executors import ProcessExecutor
from brainlocus.pipeline.figures.qsm import draw_cohort_page
from brainlocus.pipeline.genomes import require_memory
from brainlocus.pipeline.idps import remove_idps, write_idps
from brainlocus.pipeline.qsm_spaces import StandardSpace, read_atlas
from brainlocus.pipeline.qsm_standard import standard_peak_bytes
from brainlocus.pipeline.qsm_subject import (
    ScanRecord,
    ScanTask,
    current_record,
    name_scans,
    plan_scan,
    read_record,
    run_scan,
)
from brainlocus.pipeline.step import Context, Step, StepResult

__all__ = ["QSM_RUN", "QsmRunConfig", "settings_of"]

OUTLIER_MADS = 6.0
COHORT_COLUMNS = {
    "share_reliable": "reliable share of the mask",
    "mask_voxels": "voxels of the map",
    "field_noise_ppb": "field noise (ppb)",
    "residual_ppb": "unexplained field (ppb)",
    "chi_sd_ppb": "SD of susceptibility (ppb)",
    "reference_sd_ppb": "SD in the reference (ppb)",
    "reference_voxels": "reference voxels",
    "t2star_median_ms": "median T2* (ms)",
    "gradient_median_hz": "field gradient (Hz/slice)",
}
_FIXED_BYTES = 350 << 20
"""Libraries, compiled code and the pictures of a page."""


class QsmRunConfig(StepConfig):
    """Settings of ``qsm run``."""

    bids: Annotated[InputTree, Positional()] = Field(description="BIDS dataset with magnitude and phase images")
    preset: Literal["ukb", "consensus"] = Field("ukb", description="ukb: as UK Biobank; consensus: most accurate")
    participant_label: Labels = Field((), description="Participants to do, with or without sub-; default: all")
    session_label: Labels = Field((), description="Sessions to do, with or without ses-; default: all")
    masks: InputTree | None = Field(None, description="Derivatives with *_desc-brain_mask; default: in BIDS itself")
    segmentations: InputTree | None = Field(None, description="Derivatives with *_dseg; default: in BIDS itself")
    transforms: InputTree | None = Field(
        None, description="Derivatives with *_from-T1w_to-MEGRE_mode-image_xfm; default: in BIDS itself"
    )
    registration: Literal["none", "ants"] = Field(
        "none", description="Register the T1w image beside the segmentations where a transform is missing"
    )
    standard: InputPath | None = Field(
        None, description="Image of a standard space; maps are written on its grid where transforms lead there"
    )
    standard_name: str = Field(
        "MNI152", pattern="^[A-Za-z0-9]+$", description="Name of the standard space in names of files"
    )
    atlas: InputPath | None = Field(
        None, description="Labels in the standard space to measure too, such as the substantia nigra"
    )
    unwrapping: Literal["laplacian", "romeo"] | None = Field(None, description="Unwrapping; default: the preset's")
    offset: bool = Field(True, description="Remove the phase at echo time 0")
    bipolar: bool = Field(False, description="Readouts alternate their direction from echo to echo")
    reliability: Literal["coherence", "second-difference", "romeo"] | None = Field(
        None, description="Measure of the phase's reliability; default: the preset's"
    )
    reliability_thresholds: CommaFloats = Field((), description="Least reliability of each echo; default: 0.7,0.6")
    weighting: Literal["phase", "frequency", "snr"] | None = Field(
        None, description="How echoes are combined; default: the preset's"
    )
    background: Literal["vsharp", "sharp", "resharp", "pdf", "lbv"] | None = Field(
        None, description="Background removal; default: the preset's"
    )
    inversion: Literal["tkd", "lsqr", "ilsqr", "tv", "rts", "nltv", "single-step"] | None = Field(
        None, description="Dipole inversion; default: the preset's"
    )
    reference: str | None = Field(
        None, description="What counts as zero: csf, whole-brain, white-matter, none, or a region's name; default: csf"
    )
    reference_fallback: Literal["none", "whole-brain"] = Field(
        "none", description="Reference where the region is too small"
    )
    set: CommaList = Field(
        (), description="Any further setting, such as inversion.regularisation=1e-4,background.max_radius_mm=10"
    )
    keep: bool = Field(False, description="Write fields, masks 1 and 2 and reliability maps too")
    swi: bool = Field(False, description="Write the susceptibility-weighted image of the last echo too")
    invert_phase: bool = Field(False, description="The phase falls where the field rises: change its sign")
    assume_unwrapped: bool = Field(False, description="The phase is in radians and already unwrapped")
    assume_axial: bool = Field(False, description="Images without orientation have the field along their third axis")
    ge_slice_flip: bool = Field(False, description="Add pi to every second slice (GE)")
    echo_times: CommaFloats = Field((), description="Echo times in seconds, instead of those of the sidecars")
    field_strength: float | None = Field(None, gt=0, description="Tesla, instead of that of the sidecars")


def settings_of(config: QsmRunConfig) -> QsmSettings:
    """Return the preset with the choices of the command line.

    Raises
    ------
    SchemaError
        A setting that does not exist, or a value it cannot have.
    """
    chosen: dict[str, Any] = {"remove_offset": config.offset, "bipolar": config.bipolar}
    chosen["reference_fallback"] = config.reference_fallback
    for name in ("unwrapping", "reliability", "weighting", "reference"):
        if getattr(config, name) is not None:
            chosen[name] = getattr(config, name)
    if config.reliability_thresholds:
        chosen["reliability_thresholds"] = config.reliability_thresholds
    if config.background is not None:
        chosen["background"] = BACKGROUND_SETTINGS[config.background]()
    if config.inversion is not None:
        chosen["inversion"] = INVERSION_SETTINGS[config.inversion]()
    elif config.background is not None and config.preset == "consensus":
        # Its own inversion starts from the total field and would leave the chosen removal out.
        chosen["inversion"] = INVERSION_SETTINGS["tv"]()
    try:
        settings = replace(PRESETS[config.preset], **chosen)
        for assignment in config.set:
            settings = _assign(settings, assignment)
    except ValueError as error:
        raise SchemaError(f"--set or an option: {error}") from None
    if isinstance(settings.inversion, SingleStepSettings):
        unused = [f"--background {config.background}"] if config.background is not None else []
        unused += [f"--set {text}" for text in config.set if text.strip().startswith("background.")]
        if unused:
            raise SchemaError(
                f"{unused[0]}: the one-step inversion removes the background itself and would leave this out. Give "
                "another --inversion too, or take it away."
            )
    if settings.unwrapping == "romeo" and not settings.remove_offset:
        raise SchemaError(
            "--no-offset: exact unwrapping needs the phase in proportion to the echo time. Leave --no-offset out, or "
            "give --unwrapping laplacian. (Of a single echo no offset is removed in any case.)"
        )
    return settings


def _assign(settings: Any, assignment: str) -> Any:
    """Return settings with one changed: ``stage.name=value``, lists with colons."""
    path, equals, text = assignment.partition("=")
    if not equals:
        raise SchemaError(f"--set: expected name=value, found {assignment!r}.")
    return _replaced(settings, path.strip().replace("-", "_").split("."), text.strip(), assignment)


def _replaced(settings: Any, path: Sequence[str], text: str, assignment: str) -> Any:
    known = [field.name for field in fields(settings)]
    if path[0] not in known:
        raise SchemaError(f"--set {assignment}: there is no setting {path[0]!r}.{nearest(path[0], known)}")
    found = getattr(settings, path[0])
    choices = get_args(get_type_hints(type(settings))[path[0]])
    if len(path) > 1:
        if not is_dataclass(found):
            raise SchemaError(f"--set {assignment}: {path[0]!r} has no settings of its own.")
        return replace(settings, **{path[0]: _replaced(found, path[1:], text, assignment)})
    if is_dataclass(found):
        inner = ", ".join(field.name for field in fields(found))
        raise SchemaError(
            f"--set {assignment}: {path[0]!r} has settings of its own ({inner}); expected {path[0]}.name=value, or the "
            f"option --{path[0]} to choose another method."
        )
    if isinstance(found, str) and text not in choices:
        raise SchemaError(
            f"--set {assignment}: expected one of {', '.join(choices)}, found {text!r}.{nearest(text, choices)}"
        )
    return replace(settings, **{path[0]: _parsed(text, found, assignment)})


def _parsed(text: str, like: object, assignment: str) -> object:
    try:
        if isinstance(like, bool):
            return {"true": True, "on": True, "false": False, "off": False}[text.lower()]
        if isinstance(like, tuple):
            return tuple(_number(part) for part in text.split(":"))
        if isinstance(like, int):
            return int(text)
        if isinstance(like, float) or like is None:
            return _number(text)
    except (KeyError, ValueError):
        raise SchemaError(
            f"--set {assignment}: expected a value like {like!r}, found {text!r} (lists: numbers with colons)."
        ) from None
    return text


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def qsm_run(config: QsmRunConfig, out: Path, context: Context) -> StepResult:
    """Reconstruct every scan and put the cohort's tables together."""
    settings = settings_of(config)
    found = find_gradient_echoes(
        config.bids, participant_labels=config.participant_label, session_labels=config.session_label
    )
    if not len(found):
        raise FormatError(
            f"{config.bids}: no gradient-echo series found. Expected "
            "sub-*/[ses-*/]anat/*_echo-1_part-mag_MEGRE.nii.gz and *_part-phase_*."
        )
    if config.atlas is not None:
        read_atlas(config.atlas)
    at_once = max(1, min(context.executor.workers, len(found)))
    tasks = _tasks(config, settings, found.series, out, workers=max(1, context.threads // at_once))
    standard = max(standard_peak_bytes(task.standard) for task in tasks)
    _require_memory(found.series, context, at_once, standard)
    _refuse_other_settings(tasks, context)
    with locked_folder(out):
        write_dataset_description(
            out, name="Susceptibility maps", more={"SourceDatasets": [{"URL": config.bids.resolve().as_uri()}]}
        )
    done = {t.record_path: r for t in tasks if context.resume and (r := current_record(t)) is not None}
    todo = [task for task in tasks if task.record_path not in done]
    fresh = list(context.progress.track(context.executor.map(run_scan, todo), "Scans", len(todo)))
    with locked_folder(out):
        # Read under the lock: the last of several runs into one dataset sees the scans of all.
        records = _all_records(out)
        measured, n_idps = _write_tables(records, out)
    failed = [r for r in fresh if r.status == "failed"]
    check = [r for r in (*fresh, *done.values()) if r.status == "check"]
    summary = [f"{len(fresh) - len(failed)} scans done, {len(done)} were there, {len(failed)} failed"]
    summary += [f"{record.scan}: {record.reason}" for record in (*failed, *check)[:10]]
    if found.without:
        summary.append(f"{len(found.without)} participants without a series: {', '.join(found.without[:5])} ...")
    further = _further_series(records, measured)
    if further:
        summary.append(
            f"{len(further)} further series of a session have maps, but no row in idps.tsv: {further[0]} ..."
        )
    others = _other_settings(records, tasks[0].parameters)
    if others:
        summary.append(
            f"{len(others)} scans in {out} were made with other settings, the first is {others[0]}; their values may "
            "not be comparable."
        )
    summary.append(f"Quality: {out / 'qc.html'}" + (f"; {n_idps} phenotypes: {out / 'idps.tsv'}" if n_idps else ""))
    counts = {
        "scans": len(tasks),
        "resumed": len(done),
        "failed": {record.scan: record.reason for record in failed},
        "to_check": {record.scan: record.reason for record in check},
        "participants_without_series": list(found.without),
        "further_series": further,
        "other_settings": others,
        "phenotypes": n_idps,
    }
    return StepResult(counts, n_failed=len(failed) + len(check), summary=tuple(summary))


def _tasks(
    config: QsmRunConfig, settings: QsmSettings, series: Sequence[GradientEchoFiles], out: Path, workers: int
) -> list[ScanTask]:
    # Where inputs lie and which subjects are done changes nothing in a map.
    free = {"bids", "masks", "segmentations", "transforms", "standard", "atlas", "participant_label", "session_label"}
    parameters = config.model_dump(mode="json", exclude=free)
    reading = ReadSettings(
        invert_phase=config.invert_phase,
        assume_unwrapped=config.assume_unwrapped,
        assume_axial=config.assume_axial,
        ge_slice_flip=config.ge_slice_flip,
        echo_time_s=config.echo_times or None,
        field_strength_t=config.field_strength,
    )
    folders = {"masks": config.masks, "segmentations": config.segmentations, "transforms": config.transforms}
    return [
        plan_scan(
            files,
            {"scans": config.bids, **{kind: folder or config.bids for kind, folder in folders.items()}},
            stem=stem,
            out=out,
            settings=settings,
            reading=reading,
            parameters=parameters,
            register=config.registration == "ants",
            space=_space(config),
            keep=config.keep,
            weighted_image=config.swi,
            workers=workers,
        )
        for files, stem in zip(series, name_scans(series), strict=True)
    ]


def _space(config: QsmRunConfig) -> StandardSpace | None:
    if config.standard is None and config.atlas is None:
        return None
    return StandardSpace(config.standard_name, config.standard, config.atlas)


def _require_memory(series: Sequence[GradientEchoFiles], context: Context, at_once: int, standard: int) -> None:
    """Refuse scans that do not fit, as many at once as there are workers; unreadable ones are told of later."""
    largest = 0
    for files in series:
        image = next((echo.phase for echo in files.echoes if echo.phase is not None), None)
        try:
            shape = read_grid(image).shape if image is not None else (1, 1, 1)
        except FormatError:
            continue
        n_echoes = len({echo.echo for echo in files.echoes}) if len(files.echoes) > 1 else 3
        largest = max(largest, scan_peak_bytes(shape, n_echoes))
    programs = at_once if isinstance(context.executor, ProcessExecutor) else 1
    needed = at_once * (largest + standard) + programs * _FIXED_BYTES
    require_memory(needed, context.memory_bytes, f"Reconstructing {at_once} scans at once (fewer with --threads 1)")


def scan_peak_bytes(shape: tuple[int, int, int], n_echoes: int) -> int:
    """Return the most memory of one scan, besides `_FIXED_BYTES` of the program."""
    return read_gradient_echo_peak_bytes(shape, n_echoes) + reconstruct_peak_bytes(shape, n_echoes)


def _refuse_other_settings(tasks: Sequence[ScanTask], context: Context) -> None:
    """Refuse to go on with --resume where scans were made with other settings.

    Raises
    ------
    SchemaError
        Which settings differ.
    """
    if not context.resume:
        return
    for task in tasks:
        record = read_record(task.record_path)
        if record is None:
            continue
        changed = [
            f"{name}: was {record.parameters.get(name)!r}, now {value!r}"
            for name, value in task.parameters.items()
            if record.parameters.get(name) != value
        ]
        if changed:
            raise SchemaError(
                f"--resume: {record.scan} was made with other settings ({'; '.join(changed)}). Run without --resume "
                "to do it again, or give another OUT."
            )


def _all_records(out: Path) -> list[ScanRecord]:
    """Return the records of every scan in the dataset, of this run and of others."""
    paths = sorted([*out.glob("sub-*/anat/*_qsm.json"), *out.glob("sub-*/ses-*/anat/*_qsm.json")])
    return [record for path in paths if (record := read_record(path)) is not None]


def _preference(record: ScanRecord) -> tuple[bool, int, int, str]:
    """Return what the series of a session are ordered by: combined before coils, ``MEGRE`` first, then by run."""
    run = dict(part.split("-", 1) for part in record.scan.split("_")).get("run", "0")
    order = SUFFIXES.index(record.suffix) if record.suffix in SUFFIXES else len(SUFFIXES)
    return "channels" in record.counts, order, int(run) if run.isdecimal() else 0, record.scan


def _further_series(records: Sequence[ScanRecord], measured: Sequence[str]) -> list[str]:
    """Return the scans with maps whose session is represented in ``idps.tsv`` by another scan."""
    sessions = {(r.participant_id, r.session_id) for r in records if r.scan in measured}
    done = [r for r in records if r.status != "failed" and r.scan not in measured]
    return [r.scan for r in done if (r.participant_id, r.session_id) in sessions]


def _other_settings(records: Sequence[ScanRecord], parameters: Mapping[str, Any]) -> list[str]:
    """Return the scans in the dataset that were made with other settings than this run's."""
    free = {"keep", "swi"}
    wanted = {name: value for name, value in parameters.items() if name not in free}
    found = [r for r in records if r.status != "failed"]
    return [r.scan for r in found if {k: v for k, v in r.parameters.items() if k not in free} != wanted]


def _write_tables(records: Sequence[ScanRecord], out: Path) -> tuple[list[str], int]:
    """Write the cohort's tables and page; return the scans in ``idps.tsv``, and how many phenotypes there are."""
    tables: dict[str, ResultTable] = {}
    sessions: set[tuple[str, str]] = set()
    for record in sorted(records, key=_preference):
        path = out / record.participant_id / record.session_id / "anat" / f"{record.scan}_regions.tsv"
        session = (record.participant_id, record.session_id)
        if record.status != "failed" and path.is_file() and session not in sessions:
            tables[record.scan] = _text_ids(read_results(path))
            sessions.add(session)
    rows = [tables[record.scan] for record in records if record.scan in tables]
    n_idps = 0
    if rows:
        n_idps = len([c for c in write_idps(concat_results(rows), out).phenotypes.names if c != "session_id"])
    else:
        remove_idps(out)
    scans = [
        {**record.counts, "scan": record.scan, "status": record.status, "reason": record.reason, "page": record.page}
        for record in records
    ]
    outliers = find_outliers(scans, tuple(COHORT_COLUMNS))
    columns = sorted({name for record in records for name in record.counts})
    head = ["participant_id", "session_id", "scan", "status", "reason", "in_idps", "outlier_in", *columns]
    lines = ["\t".join(head)]
    for record in records:
        values = [record.participant_id, record.session_id or "n/a", record.scan, record.status]
        values += [" ".join(record.reason.split()) or "n/a", "yes" if record.scan in tables else "no"]
        values += [",".join(outliers.get(record.scan, ())) or "n/a"]
        values += [f"{record.counts[c]:.6g}" if c in record.counts else "n/a" for c in columns]
        lines.append("\t".join(values))
    with atomic_path(out / "qc.tsv") as partial:
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with atomic_path(out / "qc.html") as partial:
        partial.write_text(draw_cohort_page(scans, COHORT_COLUMNS, outliers), encoding="utf-8")
    return list(tables), n_idps


def _text_ids(rows: ResultTable) -> ResultTable:
    """Return rows whose empty session is empty text; a table of text has it as missing."""
    columns = dict(rows.columns)
    for name in ("participant_id", "session_id"):
        columns[name] = np.array(["" if str(v) in {"nan", "None"} else str(v) for v in columns[name]], dtype=np.str_)
    return ResultTable(columns)


def find_outliers(scans: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> dict[str, list[str]]:
    """Return, for each scan that has any, the numbers more than 6 MAD from the median; at least five scans are needed.

    Examples
    --------
    >>> scans = [{"scan": f"sub-{k}", "x": float(k % 3)} for k in range(9)] + [{"scan": "sub-9", "x": 50.0}]
    >>> find_outliers(scans, ["x"])
    {'sub-9': ['x']}
    """
    found: dict[str, list[str]] = {}
    for name in columns:
        values = np.array([float(scan.get(name, np.nan)) for scan in scans])
        if np.isfinite(values).sum() < 5:
            continue
        middle = np.nanmedian(values)
        spread = np.nanmedian(np.abs(values - middle))
        for k in np.flatnonzero(np.abs(values - middle) > OUTLIER_MADS * spread) if spread > 0 else ():
            found.setdefault(str(scans[int(k)]["scan"]), []).append(name)
    return found


QSM_RUN = Step(
    "qsm run",
    "Susceptibility and T2* maps, and measures of regions, from gradient-echo phase.",
    QsmRunConfig,
    qsm_run,
    out="derivatives",
    out_positional=True,
)
