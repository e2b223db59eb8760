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
and its public pipeline (``bb_file_manager``: coil folders and names); Wang et al. (2022), Nat Neurosci 25:818.
"""

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import struct
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal
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
from brainlocus.io.nifti import write_dataset_description
from brainlocus.io.nifti_header import read_header

__all__ = ["Conversion", "Visit", "convert_visit", "find_visits", "prepare_ukb_dataset", "write_ukb_tables"]

FIELDS = ("20251", "26301")
ZIP_NAME = re.compile(r"(?P<eid>[0-9]+)_(?P<field>[0-9]+)_(?P<instance>[0-9]+)_(?P<array>[0-9]+)\.zip")
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
COIL = re.compile(r"_COIL_?0*([0-9]+)(?=[_.])|(?<![0-9])0*([0-9]+)\.nii", re.IGNORECASE)
COIL_FOLDER = re.compile(r"(MAG|PHA)_TE([12])", re.IGNORECASE)

MAX_MEMBER_BYTES = 2 << 30
"""An image of UK Biobank has 14 MB; a member beyond this is no such image, or a bomb."""
MAX_MEMBERS = 20_000
_CHUNK = 1 << 20
_DAMAGED = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)


@dataclass(frozen=True, slots=True)
class Visit:
    """The zips of one person at one visit."""

    eid: str
    instance: str
    zips: tuple[Path, ...]

    @property
    def participant_id(self) -> str:
        """``sub-1234567``."""
        return f"sub-{self.eid}"

    @property
    def session_id(self) -> str:
        """``ses-2`` for the first imaging visit."""
        return f"ses-{self.instance}"

    @property
    def stem(self) -> str:
        """What file names begin with."""
        return f"{self.participant_id}_{self.session_id}"


@dataclass(frozen=True, slots=True)
class Conversion:
    """What became of a visit: a row of ``conversion.tsv``."""

    participant_id: str
    session_id: str
    status: Literal["done", "present", "failed"]
    """``present``: converted before from the same zips."""
    n_echoes: int
    n_channels: int
    """Coils written one by one; 0 without them."""
    sources: str
    message: str


@dataclass(slots=True)
class _Session:
    """Members of a visit's zips by what they are."""

    images: dict[str, tuple[Path, zipfile.ZipInfo]] = field(default_factory=dict)
    """Lower-case name without extension."""
    sidecars: dict[str, tuple[Path, zipfile.ZipInfo]] = field(default_factory=dict)
    transforms: dict[str, tuple[Path, zipfile.ZipInfo]] = field(default_factory=dict)
    coils: dict[tuple[str, int], dict[int, tuple[Path, zipfile.ZipInfo]]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    """(mag or phase, echo) to coil to member."""
    digests: dict[str, str] = field(default_factory=dict)


def find_visits(source: Path) -> tuple[tuple[Visit, ...], int]:
    """Return the visits of a zip or of all zips below a folder, and how many zips are of other fields.

    Raises
    ------
    FormatError
        There is no zip of field 20251 or 26301.
    """
    paths = [source] if source.is_file() else sorted(source.rglob("*.zip"))
    groups: dict[tuple[str, str], list[Path]] = defaultdict(list)
    others = 0
    for path in paths:
        match = ZIP_NAME.fullmatch(path.name)
        if match is None or match["field"] not in FIELDS or match["array"] != "0":
            others += 1
        else:
            groups[match["eid"], match["instance"]].append(path)
    if not groups:
        found = f", found {others} other zips" if source.is_dir() else ""
        raise FormatError(
            f"{source}: expected UK Biobank zips named <eid>_20251_<instance>_0.zip or <eid>_26301_<instance>_0.zip"
            f"{found}. Check the path."
        )
    visits = [Visit(eid, instance, tuple(zips)) for (eid, instance), zips in groups.items()]
    return tuple(sorted(visits, key=lambda v: (int(v.eid), v.instance))), others
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

    A session that was converted before from the same zips (by their checksums) is left as it is.
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
        session = _open(visit)
        before = _record(out, visit)
        wanted = {**session.digests, "channels": str(channels)}
        if before.get("sources") == wanted and (out / visit.participant_id / visit.session_id).is_dir():
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


def prepare_ukb_dataset(out: Path) -> None:
    """Write the descriptions of the dataset and of its derivatives where there are none; before any session."""
    with _alone(out):
        _write_descriptions(out)


def _write_descriptions(out: Path) -> None:
    source = [{"Name": "UK Biobank bulk data", "Version": "fields 20251, 26301"}]
    if not (out / "dataset_description.json").is_file():
        write_dataset_description(
            out,
            name="UK Biobank susceptibility-weighted MRI",
            dataset_type="raw",
            more={"SourceDatasets": [{"URL": "https://biobank.ndph.ox.ac.uk/ukb/"}]},
        )
    derived = out / "derivatives" / "ukb"
    if not (derived / "dataset_description.json").is_file():
        write_dataset_description(derived, name="Images and transforms that UK Biobank computed", generated_by=source)
    if not (out / "README").is_file():
        text = (
            "Susceptibility-weighted MRI of UK Biobank, converted from its bulk zips by brainlocus qsm convert-ukb.\n"
            "Sessions are imaging visits: ses-2 the first, ses-3 the repeat. Sidecar keys listed in ProtocolDefaults\n"
            "are those of the published protocol, because the zip had none. The status of every visit is in\n"
            "derivatives/ukb/conversion.tsv.\n"
        )
        _write_text(text, out / "README")


def write_ukb_tables(out: Path, rows: Sequence[Conversion]) -> None:
    """Write ``participants.tsv`` and the status of every visit; rows and columns of other runs and programs stay."""
    columns = ["participant_id", "session_id", "status", "n_echoes", "n_channels", "sources", "message"]
    cells = [[str(getattr(row, name)) for name in columns] for row in rows]
    with _alone(out):
        if any(row.n_channels for row in rows):
            _add_lines(out / ".bidsignore", ["*_coil-*_MEGRE.*"])
        ids = [path.name for path in sorted(out.glob("sub-*")) if path.is_dir()]
        _merge_table(out / "participants.tsv", ["participant_id"], [[name] for name in ids], keys=1, replace=False)
        _merge_table(out / "derivatives" / "ukb" / "conversion.tsv", columns, cells, keys=2, replace=True)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Keep other runs that add to the same dataset from writing its tables meanwhile, where the disk knows locks."""
    handle = os.open(out, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _open(visit: Visit) -> _Session:
    """List the zips of a visit, nothing extracted, and refuse those that are unsafe or damaged."""
    session = _Session()
    for path in visit.zips:
        if path.name in session.digests:
            raise FormatError(f"{path}: a zip of this name was found in two folders. Keep one.")
        try:
            with zipfile.ZipFile(path) as archive:
                members = archive.infolist()
        except (*_DAMAGED, OSError) as error:
            raise FormatError(f"{path}: expected a zip, but it cannot be read: {error}. Download it again.") from error
        if len(members) > MAX_MEMBERS:
            raise FormatError(f"{path}: {len(members)} members, expected at most {MAX_MEMBERS}.")
        for member in members:
            _check_member(path, member)
            _sort_in(session, path, member)
        lines = sorted(f"{m.filename}\t{m.file_size}\t{m.CRC:08x}" for m in members)
        session.digests[path.name] = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    return session


def _check_member(path: Path, member: zipfile.ZipInfo) -> None:
    name = PurePosixPath(member.filename.replace("\\", "/"))
    if name.is_absolute() or ".." in name.parts or re.match(r"[A-Za-z]:", member.filename):
        raise FormatError(f"{path}: member {member.filename!r} points outside of the zip. Is it from UK Biobank?")
    if member.flag_bits & 1:
        raise FormatError(f"{path}: member {member.filename!r} is encrypted. Decrypt the zip first.")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise FormatError(f"{path}: member {member.filename!r} is not deflated, as those of UK Biobank are.")
    if member.file_size > MAX_MEMBER_BYTES:
        raise FormatError(
            f"{path}: member {member.filename!r} has {member.file_size} bytes, expected at most {MAX_MEMBER_BYTES}."
        )


def _sort_in(session: _Session, path: Path, member: zipfile.ZipInfo) -> None:
    name = PurePosixPath(member.filename)
    key, found = name.name.lower(), (path, member)
    if member.is_dir() or name.name.startswith("."):
        return
    folder = COIL_FOLDER.fullmatch(name.parent.name)
    if folder and key.endswith((".nii", ".nii.gz")):
        number = COIL.search(name.name)
        if number:
            part = "mag" if folder[1].upper() == "MAG" else "phase"
            session.coils[part, int(folder[2])][int(number[1] or number[2])] = found
        return
    if key.endswith(".mat"):
        session.transforms.setdefault(key, found)
    elif key.endswith(".json"):
        session.sidecars.setdefault(key.removesuffix(".json"), found)
    elif key.endswith((".nii", ".nii.gz")):
        session.images.setdefault(key.removesuffix(".gz").removesuffix(".nii"), found)


def _write(visit: Visit, session: _Session, place: Path, *, channels: bool) -> tuple[int, int, list[str]]:
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


def _choose(session: _Session, sets: Sequence[tuple[str, str]], what: str, visit: Visit) -> list[str]:
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


@contextmanager
def _member(source: tuple[Path, zipfile.ZipInfo]) -> Iterator[IO[bytes]]:
    """Open a member to be read; what goes wrong with the zip is a `FormatError`, a full disk is not."""
    path, member = source
    try:
        with zipfile.ZipFile(path) as archive, archive.open(member) as stream:
            yield stream
    except (*_DAMAGED, OSError) as error:
        # An offset that a damaged directory makes negative is an invalid argument to the system.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise FormatError(f"{path}: member {member.filename!r} is damaged: {error}. Download it again.") from error


def _copy(source: tuple[Path, zipfile.ZipInfo], target: Path) -> None:
    """Stream a member to a file; never more than it says it has, its checksum verified."""
    left = source[1].file_size
    target.parent.mkdir(parents=True, exist_ok=True)
    with _member(source) as stream, target.open("wb") as file:
        while chunk := stream.read(min(_CHUNK, left + 1)):
            left -= len(chunk)
            if left < 0:
                raise zipfile.BadZipFile("more bytes than the directory of the zip says")
            file.write(chunk)
        if left:
            raise zipfile.BadZipFile("fewer bytes than the directory of the zip says")
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
    _copy(source, path)
    copy_member(source, path)
    read_header(path)


def _write_sidecar(
    session: _Session,
    session: Members,
    source: tuple[Path, zipfile.ZipInfo],
    echo: int,
    part: str,
    target: Path,
    notes: list[str],
    **more: Any,
) -> None:
    """Write an image's sidecar: the protocol, overridden by what the zip says of this image."""
    name = PurePosixPath(source[1].filename).name.removesuffix(".gz").removesuffix(".nii")
    found = _read_json(session, name) or _read_json(session, name.removesuffix("_orig"))
    """Write an image's sidecar: the protocol, overridden by what the zips say of the scan and of this image."""
    name = PurePosixPath(source[1].filename).name.removesuffix(".gz").removesuffix(".nii")
    found = read_member_json(session, name) or read_member_json(session, name.removesuffix("_orig"))
    time = found.get("EchoTime")
    nominal = ECHO_TIMES_S[echo - 1]
    if isinstance(time, int | float) and abs(time / (1000 * nominal) - 1) < 0.01:
        found["EchoTime"] = time / 1000
        notes.append(f"EchoTime {time:g} of {name} was in milliseconds")
    protocol = {"EchoTime": nominal, **PROTOCOL}
    defaults = [key for key in protocol if key not in found]
    content = {
        **protocol,
        **found,
        "Units": "arbitrary",
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
        del content["Units"]
    _write_json(content, target.with_name(target.name + ".json"))


def _read_json(session: _Session, name: str) -> dict[str, Any]:
    if name.lower() not in session.sidecars:
        return {}
    path, member = session.sidecars[name.lower()]
    with _member((path, member)) as stream:
        text = stream.read(_CHUNK)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: member {member.filename!r} is no JSON sidecar: {error}.") from error
    return content if isinstance(content, dict) else {}


def _write_coils(visit: Visit, session: _Session, raw: Path, notes: list[str]) -> int:
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


def _write_derived(visit: Visit, session: _Session, place: Path) -> None:
    """Copy masks, maps and transforms of UK Biobank."""
    folder = place / "derivatives" / "ukb" / visit.participant_id / visit.session_id / "anat"
    for name, ending in DERIVED.items():
        if name.lower() in session.transforms:
            _copy(session.transforms[name.lower()], folder / f"{visit.stem}_{ending}")
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


def _write_text(text: str, path: Path) -> None:
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _write_json(content: Mapping[str, Any], path: Path) -> None:
    _write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", path)


def _add_lines(path: Path, lines: Iterable[str]) -> None:
    present = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    _write_text("\n".join([*present, *(line for line in lines if line not in present)]) + "\n", path)


def _merge_table(path: Path, columns: list[str], rows: list[list[str]], *, keys: int, replace: bool) -> None:
    """Add rows to a TSV file, or replace those with the same first `keys` columns; other columns stay."""
    known = list(_read_rows(path))
    header = known[0] if known else columns
    header = [*header, *(name for name in columns if name not in header)]
    table = {tuple(row[:keys]): row + ["n/a"] * (len(header) - len(row)) for row in known[1:]}
    for row in rows:
        if replace or tuple(row[:keys]) not in table:
            by_name = dict(zip(columns, row, strict=True))
            table[tuple(row[:keys])] = [by_name.get(name) or "n/a" for name in header]
    lines = ["\t".join(row) for row in [header, *(table[key] for key in sorted(table))]]
    _write_text("\n".join(lines) + "\n", path)


def _read_rows(path: Path) -> Iterator[list[str]]:
    if path.is_file():
        yield from (line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
def _write_json(content: Mapping[str, Any], path: Path) -> None:
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
