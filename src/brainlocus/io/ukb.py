"""UK Biobank bulk zips of susceptibility-weighted MRI to BIDS.

Bulk files are named ``<eid>_<field>_<instance>_<array>.zip``; instance 2 is the first imaging visit, 3 the repeat.
Field 20251 (susceptibility-weighted images, NIfTI) brings magnitudes, transforms to T1 and T2* maps, field 26301
(quantitative susceptibility mapping) phases, mask and map. A person's zips of one visit become one session; which of
them holds an image does not matter. Names inside that are used (folders and letter case are not)::

    SWI_TOTAL_MAG_orig, SWI_TOTAL_MAG_TE2_orig   magnitude as acquired; else SOS_TE1/2, else SWI_TOTAL_MAG, _TE2
    PHASE_TE1, PHASE_TE2                         phase of the combined coils; else SWI_TOTAL_PHA, SWI_TOTAL_PHA_TE2
    MAG_TE1/*, PHA_TE1/* ...                     one file a coil (``..._COIL7_...``), on request
    SWI_to_T1.mat, T1_to_SWI.mat                 FLIRT transforms
    QSM_mask, brain_mask, QSM, QSM_CSFref, T2star

With fields 20252 (T1) and 20253 (T2 FLAIR), on request, also what regional measures need, in T1 space::

    T1, T1_brain_mask, T1_brain_pve_0/1/2        anatomy; CSF, grey and white matter of FAST
    T1_first_all_fast_firstseg                   subcortical labels of FIRST
    T1_unbiased_ventmask, final_mask             ventricles, white-matter lesions
    T1_to_MNI_warp_coef                          FNIRT coefficients

``SWI_TOTAL_MAG`` without ``_orig`` is corrected for gradient distortion where the correction was applied, the phase is
not: it is taken only when there is nothing else, and said so.

References
----------
UK Biobank Brain Imaging Documentation 1.8 (2020), section on swMRI; Alfaro-Almagro et al. (2018), NeuroImage 166:400,
and its public pipeline (``bb_file_manager``: coil folders and names; ``bb_QSM_IDPs``: QSM, QSM_CSFref); Wang et al.
(2022), Nat Neurosci 25:818. Which zip has which name: public code that reads them (broadinstitute/ml4h,
astewartau/ukb-qsmxt).
"""

import json
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from brainlocus._version import __version__
from brainlocus.core.errors import BrainlocusError, FormatError
from brainlocus.io.atomic import atomic_path, replace_path
from brainlocus.io.bids import find_gradient_echoes
from brainlocus.io.echo_plan import ReadSettings, plan_series
from brainlocus.io.nifti_header import read_header
from brainlocus.io.ukb_dataset import Conversion
from brainlocus.io.ukb_zip import FIELDS, Members, Visit, copy_member, open_visit, read_member_json

__all__ = ["convert_visit"]

ECHO_TIMES_S = (0.0094, 0.020)
PROTOCOL: dict[str, Any] = {
    "Manufacturer": "Siemens",
    "ManufacturersModelName": "Skyra",
    "MagneticFieldStrength": 3,
    "RepetitionTime": 0.027,
}
"""Alfaro-Almagro et al. (2018), table 1; used for keys that the zip's own sidecars lack, and listed where used."""

MAGNITUDES = (
    ("SWI_TOTAL_MAG_orig", "SWI_TOTAL_MAG_TE2_orig"),
    ("SOS_TE1", "SOS_TE2"),
    ("SWI_TOTAL_MAG", "SWI_TOTAL_MAG_TE2"),
)
PHASES = (("PHASE_TE1", "PHASE_TE2"), ("SWI_TOTAL_PHA", "SWI_TOTAL_PHA_TE2"))
CORRECTED = "SWI_TOTAL_MAG"
DERIVED = {
    "SWI_to_T1.mat": "from-MEGRE_to-T1w_mode-image_xfm.mat",
    "T1_to_SWI.mat": "from-T1w_to-MEGRE_mode-image_xfm.mat",
    "QSM_mask": "desc-qsm_mask",
    "brain_mask": "desc-brain_mask",
    "SWI_brain_mask": "desc-brain_mask",
    "QSM": "desc-ukb_Chimap",
    "QSM_CSFref": "desc-ukbCsf_Chimap",
    "T2star": "desc-ukb_T2starmap",
}
STRUCTURAL = {
    "T1": "desc-ukb_T1w",
    "T1_brain_mask": "space-T1w_desc-brain_mask",
    "T1_brain_pve_0": "space-T1w_label-CSF_probseg",
    "T1_brain_pve_1": "space-T1w_label-GM_probseg",
    "T1_brain_pve_2": "space-T1w_label-WM_probseg",
    "T1_first_all_fast_firstseg": "space-T1w_desc-first_dseg",
    "T1_unbiased_ventmask": "space-T1w_label-ventricle_mask",
    "final_mask": "label-WMH_mask",
    "T1_to_MNI_warp_coef": "from-T1w_to-MNI152NLin6Asym_mode-image_desc-coefficients_xfm",
}


def convert_visit(visit: Visit, out: Path, work: Path, *, channels: bool = False) -> Conversion:
    """Write one session of a BIDS dataset, as a whole or not at all; what is wrong with its zips is its status.

    A session that was converted before from these zips (by their checksums), or from these and more, is left as it is.

    Parameters
    ----------
    out
        The dataset.
    work
        Folder for unfinished sessions, on the same file system.
    channels
        Also write single coils, as a series of their own (``acq-coils``).
    """
    sources = " ".join(path.name for path in visit.zips)
    place = work / visit.stem
    try:
        session = open_visit(visit)
        before = _record(out, visit)
        wanted = {**session.digests, "channels": str(channels)}
        if _covers(before.get("sources"), wanted) and (out / visit.participant_id / visit.session_id).is_dir():
            counts = (int(before.get("n_echoes", 0)), int(before.get("n_channels", 0)))
            return Conversion(visit.participant_id, visit.session_id, "present", *counts, sources, before["notes"])
        shutil.rmtree(place, ignore_errors=True)
        n_echoes, n_channels, notes = _write(visit, session, place, channels=channels)
        record = {"sources": wanted, "n_echoes": n_echoes, "n_channels": n_channels, "notes": "; ".join(notes)}
        _write_json(record | {"version": __version__}, place / _record_name(visit))
        _install(visit, place, out)
        return Conversion(
            visit.participant_id, visit.session_id, "done", n_echoes, n_channels, sources, "; ".join(notes)
        )
    except BrainlocusError as error:
        text = " ".join(str(error).replace(f"{place}/", "").split())
        return Conversion(visit.participant_id, visit.session_id, "failed", 0, 0, sources, text)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _write(visit: Visit, session: Members, place: Path, *, channels: bool) -> tuple[int, int, list[str]]:
    """Write a session below `place` as in the dataset, check it, and return echoes, coils and notes."""
    notes: list[str] = []
    phase, magnitude = _choose(session, PHASES, "phase", visit), _choose(session, MAGNITUDES, "magnitude", visit)
    if len(phase) != len(magnitude):
        raise FormatError(
            f"{visit.stem}: found {len(phase)} echoes of phase ({', '.join(phase)}) but {len(magnitude)} of magnitude "
            f"({', '.join(magnitude)}). Is a zip incomplete?"
        )
    if magnitude[0] == CORRECTED:
        notes.append(f"{CORRECTED} may be corrected for gradient distortion, the phase is not; there was no other")
    raw = place / visit.participant_id / visit.session_id / "anat"
    for echo, names in enumerate(zip(magnitude, phase, strict=True), start=1):
        for part, name in zip(("mag", "phase"), names, strict=True):
            target = raw / f"{visit.stem}_echo-{echo}_part-{part}_MEGRE"
            source = session.images[name.lower()]
            _copy_image(source, target)
            _write_sidecar(session, source, echo, part, target, notes)
    n_channels = _write_coils(visit, session, raw, notes) if channels else 0
    if not channels and session.coils:
        notes.append(f"{max(map(len, session.coils.values()))} single coils left out")
    _write_derived(visit, session, place)
    for files in find_gradient_echoes(place):
        notes += [note.text for note in plan_series(files, ReadSettings()).notes if note.is_warning]
    return len(phase), n_channels, list(dict.fromkeys(notes))


def _choose(session: Members, sets: Sequence[tuple[str, str]], what: str, visit: Visit) -> list[str]:
    """Return the names of the first set that is there, first echo alone where no set has both."""
    for complete in (True, False):
        for names in sets:
            present = [name for name in names if name.lower() in session.images]
            if present and present[0] == names[0] and (len(present) == len(names) or not complete):
                return present
    looked = ", ".join(name for names in sets for name in names)
    zips = " and ".join(path.name for path in visit.zips)
    missing = [f"{visit.eid}_{f}_{visit.instance}_0.zip" for f in FIELDS]
    absent = [name for name in missing if name not in session.digests]
    advice = f" Give {absent[0]} too, in the same folder." if absent else ""
    raise FormatError(f"{visit.stem}: there is no {what} in {zips}; looked for {looked}.{advice}")


def _of_scan(session: Members) -> dict[str, Any]:
    """Return what any sidecar of the scan says of the scan, for images without a sidecar of their own."""
    names = [name for names in (*MAGNITUDES, *PHASES) for name in names]
    found: dict[str, Any] = {}
    for name in names:
        sidecar = read_member_json(session, name) or read_member_json(session, name.removesuffix("_orig"))
        found = {key: sidecar[key] for key in (*PROTOCOL, "ImagingFrequency") if key in sidecar} | found
    return found


def _copy_image(source: tuple[Path, zipfile.ZipInfo], target: Path) -> None:
    name = source[1].filename.lower()
    path = target.with_name(target.name + (".nii.gz" if name.endswith(".gz") else ".nii"))
    copy_member(source, path)
    read_header(path)


def _write_sidecar(
    session: Members,
    source: tuple[Path, zipfile.ZipInfo],
    echo: int,
    part: str,
    target: Path,
    notes: list[str],
    **more: Any,
) -> None:
    """Write an image's sidecar: the protocol, overridden by what the zips say of the scan and of this image."""
    name = PurePosixPath(source[1].filename).name.removesuffix(".gz").removesuffix(".nii")
    found = read_member_json(session, name) or read_member_json(session, name.removesuffix("_orig"))
    time = found.get("EchoTime")
    nominal = ECHO_TIMES_S[echo - 1]
    if isinstance(time, int | float) and abs(time / (1000 * nominal) - 1) < 0.01:
        found["EchoTime"] = time / 1000
        notes.append(f"EchoTime {time:g} of {name} was in milliseconds")
    known = {**_of_scan(session), **found}
    protocol = {"EchoTime": nominal, **PROTOCOL}
    defaults = [key for key in protocol if key not in known]
    if "MagneticFieldStrength" in defaults and "ImagingFrequency" not in known:
        notes.append("field strength not in the zips: the protocol's nominal 3 T (Skyra systems image at 2.89 T)")
    content = {
        "Units": "arbitrary",
        **protocol,
        **known,
        "EchoNumber": echo,
        **more,
        "ProtocolDefaults": defaults,
        "Sources": [f"{source[0].name}/{source[1].filename}"],
    }
    if part == "mag":
        content.pop("Units")
    _write_json(content, target.with_name(target.name + ".json"))


def _write_coils(visit: Visit, session: Members, raw: Path, notes: list[str]) -> int:
    """Write single coils where all parts and echoes have the same ones."""
    if not session.coils:
        return 0
    numbers = {key: sorted(coils) for key, coils in session.coils.items()}
    echoes = sorted({echo for _, echo in numbers})
    expected = {(part, echo) for part in ("mag", "phase") for echo in echoes}
    if set(numbers) != expected or len({tuple(n) for n in numbers.values()}) > 1:
        counts = {f"{part} {echo}": len(n) for (part, echo), n in numbers.items()}
        notes.append(f"single coils left out: not the same ones in every part and echo ({counts})")
        return 0
    for (part, echo), coils in session.coils.items():
        for coil, source in coils.items():
            target = raw / f"{visit.stem}_acq-coils_echo-{echo}_part-{part}_coil-{coil:02d}_MEGRE"
            _copy_image(source, target)
            _write_sidecar(session, source, echo, part, target, notes, ReceiveCoil=coil)
    return len(next(iter(numbers.values())))


def _write_derived(visit: Visit, session: Members, place: Path) -> None:
    """Copy masks, maps, segmentations and transforms of UK Biobank."""
    folder = place / "derivatives" / "ukb" / visit.participant_id / visit.session_id / "anat"
    for name, ending in (DERIVED | STRUCTURAL).items():
        if name.lower() in session.transforms:
            copy_member(session.transforms[name.lower()], folder / f"{visit.stem}_{ending}")
        elif name.lower() in session.images:
            target = folder / f"{visit.stem}_{ending}"
            if not any(folder.glob(f"{target.name}.*")):
                source = session.images[name.lower()]
                _copy_image(source, target)
                _write_json({"Sources": [f"{source[0].name}/{source[1].filename}"]}, folder / f"{target.name}.json")
    folder.mkdir(parents=True, exist_ok=True)


def _record_name(visit: Visit) -> Path:
    return Path("derivatives/ukb", visit.participant_id, visit.session_id, f"{visit.stem}_conversion.json")


def _record(out: Path, visit: Visit) -> dict[str, Any]:
    """Return what an earlier conversion of this visit left, empty where there is nothing to trust."""
    try:
        content = json.loads((out / _record_name(visit)).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) and isinstance(content.get("notes"), str) else {}


def _covers(before: object, wanted: Mapping[str, str]) -> bool:
    """Return whether a session was made from these zips, or from these and more."""
    if not isinstance(before, dict) or (wanted["channels"] == "True" and before.get("channels") != "True"):
        return False
    return all(before.get(name) == digest for name, digest in wanted.items() if name != "channels")


def _install(visit: Visit, place: Path, out: Path) -> None:
    """Rename a finished session into the dataset; the raw images come last, so that their presence means done."""
    parts = [Path("derivatives", "ukb", visit.participant_id, visit.session_id)]
    parts.append(Path(visit.participant_id, visit.session_id))
    if (out / parts[1]).is_dir():
        shutil.rmtree(out / parts[1])
    for part in parts:
        (out / part).parent.mkdir(parents=True, exist_ok=True)
        replace_path(place / part, out / part)


def _write_json(content: Mapping[str, Any], path: Path) -> None:
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
