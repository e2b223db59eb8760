"""Which tests are corrected together, how many they are, and their q (Benjamini-Hochberg) from streams of tests."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Int, Shaped

from brainlocus.core import SCOPES, GeneBlock, SchemaError
from brainlocus.store import layout
from brainlocus.store.gene_spool import Rows, Spool

__all__ = ["ALPHA", "CountedTests", "Scopes", "log_q_of"]

ALPHA = 0.05
"""q up to which an association counts as significant in the catalogues."""
_CHUNK = 1 << 20


def _grown(table: Shaped[np.ndarray, "a b"], shape: tuple[int, int], fill: int | float) -> Shaped[np.ndarray, "c d"]:
    """Return a table that is at least of `shape`; it doubles, so that growing is rare."""
    if table.shape[0] >= shape[0] and table.shape[1] >= shape[1]:
        return table
    new = [max(2 * old, 16, wanted) if old < wanted else old for old, wanted in zip(table.shape, shape, strict=True)]
    grown = np.full(new, fill, dtype=table.dtype)
    grown[: table.shape[0], : table.shape[1]] = table
    return grown


class CountedTests:
    """How many tests were made of every phenotype and tissue, as far as it is known."""

    def __init__(self) -> None:
        self.tested = np.zeros((0, 0), dtype=np.int64)
        self.uncounted = np.zeros((0, 0), dtype=bool)
        """A selection of this pair's tests was listed: they cannot be counted."""
        self.least = {scope: np.zeros((0, 0)) for scope in SCOPES}
        """Smallest number of tests of each scope that came with the tests; infinite where none did."""
        self.most = {scope: np.zeros((0, 0)) for scope in SCOPES}

    def add(self, block: GeneBlock, pid: Int[np.ndarray, " phenotypes"], tid: Int[np.ndarray, " tissues"]) -> None:
        """Count the tests of a block whose phenotypes and tissues have these numbers."""
        shape = (int(pid.max(initial=-1)) + 1, int(tid.max(initial=-1)) + 1)
        self.grow(shape)
        tests = block.tests
        shown = pid >= 0
        listed = shown[tests.phenotype] if len(tests) else np.zeros(0, dtype=bool)
        if block.n_tested is None:
            self.uncounted[pid[tests.phenotype[listed]], tid[tests.tissue[listed]]] = True
        else:
            np.add.at(self.tested, (pid[shown][:, None], tid[None, :]), block.n_tested[shown])
        for scope, values in block.n_tests.items():
            at = np.flatnonzero(np.isfinite(values) & listed)
            place = (pid[tests.phenotype[at]], tid[tests.tissue[at]])
            np.minimum.at(self.least[scope], place, values[at])
            np.maximum.at(self.most[scope], place, values[at])

    def grow(self, shape: tuple[int, int]) -> None:
        """Make room for this many phenotypes and tissues."""
        self.tested, self.uncounted = _grown(self.tested, shape, 0), _grown(self.uncounted, shape, False)
        for scope in SCOPES:
            self.least[scope] = _grown(self.least[scope], shape, np.inf)
            self.most[scope] = _grown(self.most[scope], shape, -np.inf)

    def of_group(self, scope: str, pairs: Any) -> float:
        """Return the number of tests of some pairs of phenotype and tissue; NaN where it is unknown.

        Raises
        ------
        SchemaError
            Tests of one group came with different numbers of tests.
        """
        low, high = self.least[scope][pairs].min(initial=np.inf), self.most[scope][pairs].max(initial=-np.inf)
        if np.isfinite(low):
            if low != high:
                column = "n_tests" if scope == "study" else f"n_tests_{scope.replace('-', '_')}"
                raise SchemaError(
                    f"Column {column}: expected one number of tests for the whole {scope}, found {low:g} to {high:g}. "
                    "Name the column after what was counted, such as n_tests_phenotype_tissue."
                )
            return float(low)
        return float("nan") if self.uncounted[pairs].any() else float(self.tested[pairs].sum())


@dataclass(slots=True)
class _Ladder:
    """q of every strength of one group of tests, on disk: strengths ascending, and -log10 q beside them."""

    strength: Float[np.ndarray, " tests"]
    log_q: Float[np.ndarray, " tests"]

    def of(self, strength: Float[np.ndarray, " asked"]) -> Float[np.ndarray, " asked"]:
        """Return -log10 q of strengths that occur in the group."""
        return np.asarray(self.log_q[np.searchsorted(self.strength, strength, side="left")])


def log_q_of(strength: Float[np.ndarray, " tests"], n_tests: float) -> Float[np.ndarray, " tests"]:
    """Return -log10 of the Benjamini-Hochberg q of ascending strengths, the strongest of `n_tests` tests.

    q_(i) is the smallest ``p_(j) n_tests / j`` of j >= i, ranks counted from the strongest (Benjamini & Hochberg 1995):
    on ascending strengths a running maximum. Tests that are not listed have greater p than all listed, so that they
    change q only where it is above the greatest listed p.
    """
    log_q = np.empty(strength.size, dtype=np.float32)
    highest = 0.0
    for start in range(0, strength.size, _CHUNK):
        part = strength[start : start + _CHUNK].astype(np.float64)
        rank = strength.size - start - np.arange(part.size)
        running = np.maximum.accumulate(np.r_[highest, part - np.log10(n_tests) + np.log10(rank)])
        highest = float(running[-1])
        log_q[start : start + _CHUNK] = running[1:]
    return log_q


class Scopes:
    """Groups of tests that are corrected together, their sizes, and q by strength."""

    def __init__(
        self,
        counts: CountedTests,
        phenotypes: Sequence[dict[str, Any]],
        tissues: list[str],
        work: Path,
        rows: Spool,
    ) -> None:
        self._counts, self._tissues = counts, tissues
        self._ids = [row["phenotype_id"] for row in phenotypes]
        used = counts.tested[: len(phenotypes), : len(tissues)].any(axis=1)
        used |= counts.uncounted[: len(phenotypes), : len(tissues)].any(axis=1)
        self._used = np.flatnonzero(used)
        self._groups: dict[str, dict[str, Int[np.ndarray, " phenotypes"]]] = {"study": {"": self._used}}
        for scope in ("modality", "atlas"):
            names = [phenotypes[pid][scope] or "" for pid in self._used.tolist()]
            self._groups[scope] = {
                name: self._used[[k for k, n in enumerate(names) if n == name]] for name in sorted(set(names))
            }
        self._group_of = {
            scope: {int(pid): name for name, pids in groups.items() for pid in pids.tolist()}
            for scope, groups in self._groups.items()
        }
        self._work = work
        self._size: dict[tuple[str, str], float] = {}
        self._ladders: dict[tuple[str, str], _Ladder | None] = {}
        self._rows: list[dict[str, Any]] = []
        self._any_known = dict.fromkeys(SCOPES, False)
        self._build(rows)

    def known(self, scope: str) -> bool:
        """Return whether the number of tests of a scope is known for any of its groups."""
        return self._any_known[scope]

    def total(self) -> int | None:
        """Return the number of tests of the study, None where it is unknown."""
        size = self._size.get(("study", ""), float("nan"))
        return None if np.isnan(size) else int(size)

    def _build(self, rows: Spool) -> None:
        """Sort the strengths of every group that spans phenotypes, one after the other."""
        for scope, groups in self._groups.items():
            every = np.arange(len(self._tissues))
            sizes = {name: self._counts.of_group(scope, np.ix_(pids, every)) for name, pids in groups.items()}
            spool = Spool(self._work / scope, np.dtype("f4"))
            numbers = {name: k for k, name in enumerate(groups)}
            if any(np.isfinite(size) for size in sizes.values()):
                for file in sorted(rows.numbers):
                    part = rows.read(file)
                    of_pid = self._group_of[scope]
                    codes = {pid: numbers[of_pid[pid]] for pid in np.unique(part["pid"]).tolist()}
                    lookup = np.zeros(max(codes) + 1, dtype=np.int64)
                    lookup[list(codes)] = list(codes.values())
                    spool.append(np.ascontiguousarray(part["strength"]), lookup[part["pid"]])
                spool.flush()
            for name, size in sizes.items():
                self._size[scope, name] = size
                self._ladders[scope, name] = None
                if np.isfinite(size) and numbers[name] in spool.numbers:
                    self._ladders[scope, name] = self._ladder(spool, numbers[name], size)
                if np.isfinite(size):
                    self._any_known[scope] = True

    def _ladder(self, spool: Spool, number: int, size: float) -> _Ladder:
        strength = spool.read(number, remove=True)
        strength.sort()
        _check_size(strength.size, size)
        paths = [spool.folder / f"{number}.{name}.npy" for name in ("strength", "log_q")]
        np.save(paths[0], strength)
        np.save(paths[1], log_q_of(strength, size))
        return _Ladder(np.load(paths[0], mmap_mode="r"), np.load(paths[1], mmap_mode="r"))

    def fill(self, rows: Rows) -> None:
        """Write q into rows that are sorted by phenotype, gene and tissue, where it can be computed."""
        # Strengths are looked up in ascending order: neighbours are then found near each other.
        ascending = np.argsort(rows["strength"])
        pids = np.unique(rows["pid"]).tolist()
        for k, scope in enumerate(("study", "modality", "atlas")):
            of_pid = self._group_of[scope]
            for name in {of_pid[pid] for pid in pids}:
                ladder = self._ladders[scope, name]
                if ladder is not None:
                    members = [pid for pid in pids if of_pid[pid] == name]
                    at = ascending[np.isin(rows["pid"][ascending], members)]
                    rows["q"][at, k] = ladder.of(rows["strength"][at])
        for pid in pids:
            first, last = (int(k) for k in np.searchsorted(rows["pid"], [pid, pid + 1]))
            mine = rows[first:last]
            for k, scope in enumerate(("study", "modality", "atlas")):
                self._note(scope, pid, None, mine, k)
            self._fill_small(mine, "phenotype", pid, None)
            for tid in np.unique(mine["tid"]).tolist():
                at = np.flatnonzero(mine["tid"] == tid)
                part = mine[at]
                self._fill_small(part, "phenotype-tissue", pid, tid)
                mine[at] = part

    def _fill_small(self, mine: Rows, scope: str, pid: int, tid: int | None) -> None:
        pairs = (np.array([pid]), slice(0, len(self._tissues)) if tid is None else np.array([tid]))
        size = self._counts.of_group(scope, pairs)
        k = SCOPES.index(scope)
        if np.isfinite(size):
            _check_size(mine.size, size)
            self._any_known[scope] = True
            ascending = np.sort(mine["strength"])
            mine["q"][:, k] = _Ladder(ascending, log_q_of(ascending, size)).of(mine["strength"])
        self._size[scope, f"{pid}/{tid}"] = size
        self._note(scope, pid, tid, mine, k)

    def _note(self, scope: str, pid: int, tid: int | None, mine: Rows, k: int) -> None:
        passed = int((mine["q"][:, k] >= -np.log10(ALPHA)).sum())
        self._rows.append(
            {"scope": scope, "pid": pid, "tid": tid, "n_associations": mine.size, "n_significant": passed}
        )

    def write(self, path: Path, given: set[str]) -> None:
        """Write one row for every group of tests."""
        merged: dict[tuple[str, int | None, int | None, str], dict[str, Any]] = {}
        empty = {"pid": None, "tid": None, "n_associations": 0, "n_significant": 0}
        rows = [
            {**empty, "scope": s, "pid": int(pids[0])}
            for s, g in self._groups.items()
            for pids in g.values()
            if pids.size
        ]
        for row in [*rows, *self._rows]:
            scope, pid, tid = row["scope"], row["pid"], row["tid"]
            wide = scope in self._groups
            name = self._group_of[scope][pid] if wide else self._ids[pid]
            key = (scope, None if wide else pid, tid, name)
            size = self._size[scope, name if wide else f"{pid}/{tid}"]
            into = merged.setdefault(
                key,
                {
                    "scope": scope,
                    "name": name,
                    "pid": key[1],
                    "tid": tid,
                    "n_tests": None if np.isnan(size) else int(size),
                    "n_associations": 0,
                    "n_significant": 0,
                    "given": np.isnan(size) and scope in given,
                },
            )
            into["n_associations"] += row["n_associations"]
            into["n_significant"] += row["n_significant"]
        for into in merged.values():
            if into["n_tests"] is None and not into["given"]:
                into["n_significant"] = None
        path.parent.mkdir(parents=True, exist_ok=True)
        table = pa.Table.from_pylist([merged[k] for k in sorted(merged, key=_scope_order)], layout.SCOPES_SCHEMA)
        pq.write_table(table, path, **layout.parquet_options(layout.SCOPES_SCHEMA))


def _scope_order(key: tuple[str, int | None, int | None, str]) -> tuple[int, int, int, str]:
    scope, pid, tid, name = key
    return SCOPES.index(scope), -1 if pid is None else pid, -1 if tid is None else tid, name


def _check_size(listed: int, size: float) -> None:
    if listed > size:
        raise SchemaError(
            f"The results list {listed} tests of a group for which they say that {size:g} were made. Correct the "
            "column n_tests."
        )
