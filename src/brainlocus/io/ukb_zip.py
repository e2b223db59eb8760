"""Zips of one person at one visit: what they hold, read without extracting, and refused where it is not safe.

No name in a zip becomes a path: members are found by name and streamed to names of ours.
"""

import errno
import hashlib
import json
import re
import struct
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

from brainlocus.core.errors import FormatError

__all__ = ["FIELDS", "Members", "Visit", "copy_member", "find_visits", "open_visit", "read_member_json"]

FIELDS = ("20251", "26301")
STRUCTURAL_FIELDS = ("20252", "20253")
ZIP_NAME = re.compile(r"(?P<eid>[0-9]+)_(?P<field>[0-9]+)_(?P<instance>[0-9]+)_(?P<array>[0-9]+)\.zip")


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


@dataclass(slots=True)
class Members:
    """Members of a visit's zips by what they are, each with the zip it is in."""

    images: dict[str, tuple[Path, zipfile.ZipInfo]] = field(default_factory=dict)
    """Lower-case name without extension."""
    sidecars: dict[str, tuple[Path, zipfile.ZipInfo]] = field(default_factory=dict)
    transforms: dict[str, tuple[Path, zipfile.ZipInfo]] = field(default_factory=dict)
    coils: dict[tuple[str, int], dict[int, tuple[Path, zipfile.ZipInfo]]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    """(mag or phase, echo) to coil to member."""
    digests: dict[str, str] = field(default_factory=dict)


def find_visits(source: Path, *, structural: bool = False) -> tuple[tuple[Visit, ...], int]:
    """Return the visits of a zip or of all zips below a folder, and how many zips are left aside.

    Parameters
    ----------
    structural
        Also take zips of fields 20252 and 20253, of visits that have one of 20251 or 26301.

    Raises
    ------
    FormatError
        There is no zip of field 20251 or 26301.
    """
    paths = [source] if source.is_file() else sorted(source.rglob("*.zip"))
    fields = (*FIELDS, *(STRUCTURAL_FIELDS if structural else ()))
    every: dict[tuple[str, str], dict[Path, str]] = defaultdict(dict)
    for path in paths:
        match = ZIP_NAME.fullmatch(path.name)
        if match is not None and match["field"] in fields and match["array"] == "0":
            every[match["eid"], match["instance"]][path] = match["field"]
    groups = {key: zips for key, zips in every.items() if not set(zips.values()).isdisjoint(FIELDS)}
    others = len(paths) - sum(map(len, groups.values()))
    if not groups:
        found = f", found {others} other zips" if source.is_dir() else ""
        raise FormatError(
            f"{source}: expected UK Biobank zips named <eid>_20251_<instance>_0.zip or <eid>_26301_<instance>_0.zip"
            f"{found}. Check the path."
        )
    visits = [Visit(eid, instance, tuple(zips)) for (eid, instance), zips in groups.items()]
    return tuple(sorted(visits, key=lambda v: (int(v.eid), v.instance))), others


def open_visit(visit: Visit) -> Members:
    """List the zips of a visit, nothing extracted.

    Raises
    ------
    FormatError
        A zip is damaged, encrypted, there twice, too large, or has names that point outside of it.
    """
    session = Members()
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


def _sort_in(session: Members, path: Path, member: zipfile.ZipInfo) -> None:
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


@contextmanager
def read_member(source: tuple[Path, zipfile.ZipInfo]) -> Iterator[IO[bytes]]:
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


def copy_member(source: tuple[Path, zipfile.ZipInfo], target: Path) -> None:
    """Stream a member to a file; never more than it says it has, its checksum verified.

    Raises
    ------
    FormatError
        It is damaged.
    """
    left = source[1].file_size
    target.parent.mkdir(parents=True, exist_ok=True)
    with read_member(source) as stream, target.open("wb") as file:
        while chunk := stream.read(min(_CHUNK, left + 1)):
            left -= len(chunk)
            if left < 0:
                raise zipfile.BadZipFile("more bytes than the directory of the zip says")
            file.write(chunk)
        if left:
            raise zipfile.BadZipFile("fewer bytes than the directory of the zip says")


def read_member_json(session: Members, name: str) -> dict[str, Any]:
    """Return the sidecar of an image by the image's name; empty where the zips have none.

    Raises
    ------
    FormatError
        It is damaged or no JSON.
    """
    if name.lower() not in session.sidecars:
        return {}
    path, member = session.sidecars[name.lower()]
    with read_member((path, member)) as stream:
        text = stream.read(_CHUNK)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: member {member.filename!r} is no JSON sidecar: {error}.") from error
    return content if isinstance(content, dict) else {}
