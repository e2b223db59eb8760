"""The scan of all models against all phenotypes: blocks of phenotypes through the kernels, into matrices.

A pattern is the set of model SNPs that a GWAS has. The weights of the most common pattern serve all phenotypes of a
block; genes that touch a SNP in which another pattern differs are weighed and scanned again for its phenotypes.
"""

from collections import Counter
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from brainlocus.core import ResourceError
from brainlocus.genetics.twas import (
    GeneWeights,
    LdMismatch,
    PhenotypeBlock,
    TissueModel,
    measure_ld_mismatch,
    scan_genes,
    scan_genes_peak_bytes,
    turn_block,
    weigh_genes,
)
from brainlocus.pipeline.step import Context
from brainlocus.pipeline.twas_gwas import PreparedGwas

__all__ = ["GeneScan", "Patterns", "block_of_phenotypes", "scan_phenotypes"]

_LARGEST_BLOCK = 1_024
_CHECKED = 16
"""GWAS whose LD is compared with the panel's."""
_IN_MEMORY_SHARE = 0.25
"""Of the memory, for the matrices of results; larger ones lie on disk."""


@dataclass(slots=True)
class Patterns:
    """Variance of predicted expression and SNPs used, of every model's gene, by pattern of absent SNPs."""

    number: Int[np.ndarray, " phenotypes"]
    """Pattern of each phenotype; 0 is the base."""
    var_g: Float[np.ndarray, " models"]
    """Of the base."""
    n_snps_used: Int[np.ndarray, " models"]
    in_gwas: Bool[np.ndarray, " models"]
    others: dict[int, tuple[Any, Any, Any, Any]] = field(default_factory=dict)
    """By pattern: the rows that differ (ascending), and their var_g, n_snps_used and in_gwas."""

    def of(
        self, row: Int[np.ndarray, " cells"], phenotype: Int[np.ndarray, " cells"]
    ) -> tuple[Float[np.ndarray, " cells"], Int[np.ndarray, " cells"], Bool[np.ndarray, " cells"]]:
        """Return var_g, n_snps_used and in_gwas of some cells."""
        var_g, n_used, in_gwas = self.var_g[row], self.n_snps_used[row], self.in_gwas[row]
        pattern = self.number[phenotype]
        for number in np.unique(pattern[pattern > 0]).tolist():
            rows, *values = self.others[number]
            cells = np.flatnonzero(pattern == number)
            if not rows.size:
                continue
            at = np.minimum(np.searchsorted(rows, row[cells]), rows.size - 1)
            same = rows[at] == row[cells]
            for target, value in zip((var_g, n_used, in_gwas), values, strict=True):
                target[cells[same]] = value[at[same]]
        return var_g, n_used, in_gwas


@dataclass(frozen=True, slots=True, eq=False)
class GeneScan:
    """Results of a scan: rows are the genes of all models, columns the phenotypes."""

    gwas: PreparedGwas
    offsets: Int[np.ndarray, " tissues_and_one"]
    z: Float[np.ndarray, "models phenotypes"]
    """Calibrated where asked for."""
    effect: Float[np.ndarray, "models phenotypes"] | None
    patterns: Patterns
    phi: Float[np.ndarray, " models"]
    n_h2: Float[np.ndarray, " phenotypes"] | None
    """N times h2 of every GWAS, for the calibration; None: not calibrated."""
    mismatch: tuple[LdMismatch, ...]
    """Of every model: whether the LD of the panel fits some of the GWAS."""

    @property
    def tissues(self) -> tuple[TissueModel, ...]:
        """The models."""
        return self.gwas.models.tissues

    def inflation(
        self, row: Int[np.ndarray, " cells"], phenotype: Int[np.ndarray, " cells"]
    ) -> Float[np.ndarray, " cells"]:
        """Return ``1 + phi N h2`` of some cells, 1 where phi or N h2 is unknown; negative phi counts as 0."""
        if self.n_h2 is None:
            return np.ones(row.size)
        factor = 1.0 + np.maximum(self.phi[row], 0.0) * self.n_h2[phenotype]
        return np.asarray(np.nan_to_num(factor, nan=1.0))


def block_of_phenotypes(gwas: PreparedGwas, memory_bytes: int) -> int:
    """Return how many phenotypes fit.

    Raises
    ------
    ResourceError
        Not even one does.
    """
    genes = [t.genes.size for t in gwas.models.tissues]
    one = scan_genes_peak_bytes(gwas.models.snps.n_entries, genes, 1, gwas.z.dtype.itemsize)
    size = min(_LARGEST_BLOCK, len(gwas.phenotypes), int(memory_bytes * 0.5) // one)
    if size < 1:
        raise ResourceError(
            f"A scan of {gwas.models.snps.n_entries:,} SNPs needs {2 * one / 2**20:.0f} MiB, "
            f"{memory_bytes / 2**20:.0f} MiB are given. Raise --memory."
        )
    return size


class _Weights:
    """Weights of all models by pattern."""

    def __init__(self, tissues: tuple[TissueModel, ...], base: Bool[np.ndarray, " entries"]) -> None:
        self._tissues = tissues
        self.base_present = base
        self.base = [weigh_genes(t, base) for t in tissues]

    def corrections(
        self, present: Bool[np.ndarray, " entries"]
    ) -> list[tuple[Int[np.ndarray, " _genes"], GeneWeights]]:
        """Return, for every model, the genes that touch a SNP where the pattern differs, and their weights."""
        differs = present != self.base_present
        found = []
        for tissue in self._tissues:
            gene = np.repeat(np.arange(tissue.genes.size), np.diff(tissue.offsets))
            genes = np.unique(gene[differs[tissue.entry]])
            found.append((genes, weigh_genes(tissue, present, genes)))
        return found


def scan_phenotypes(
    gwas: PreparedGwas,
    folder: Path,
    context: Context,
    *,
    dtype: str = "float64",
    n_h2: Float[np.ndarray, " phenotypes"] | None = None,
) -> GeneScan:
    """Scan every model against every phenotype.

    Parameters
    ----------
    folder
        For matrices that do not fit in a quarter of the memory: ``gene_z.npy`` and ``gene_effect.npy``.
    dtype
        Of the results; sums are in float64 whatever it is.
    n_h2
        N times h2 of every GWAS: z is divided by ``sqrt(1 + phi N h2)`` (Liang et al. 2023).
    """
    tissues = gwas.models.tissues
    offsets = gwas.models.offsets
    shape = (int(offsets[-1]), len(gwas.phenotypes))
    fields = 1 if gwas.beta is None else 2
    on_disk = fields * shape[0] * shape[1] * np.dtype(dtype).itemsize > _IN_MEMORY_SHARE * context.memory_bytes
    z = _matrix(folder / "gene_z.npy", shape, dtype, on_disk=on_disk)
    effect = None if gwas.beta is None else _matrix(folder / "gene_effect.npy", shape, dtype, on_disk=on_disk)
    size = block_of_phenotypes(gwas, context.memory_bytes)
    starts = range(0, len(gwas.phenotypes), size)
    numbers: dict[bytes, int] = {}
    of_phenotype = np.zeros(shape[1], dtype=np.int64)
    weights: _Weights | None = None
    others: dict[int, tuple[Any, Any, Any, Any]] = {}
    phi = np.concatenate([t.phi for t in tissues])
    buffers = _Buffers(gwas, size)
    for start in context.progress.track(starts, "Scanning phenotypes", len(starts)):
        stop = min(start + size, shape[1])
        if stop - start < size:
            buffers = _Buffers(gwas, stop - start)
        present, block = buffers.read(gwas, start, stop)
        keys = [blake2b(np.packbits(row).tobytes(), digest_size=16).digest() for row in present]
        if weights is None:
            common = Counter(keys).most_common(1)[0][0]
            weights = _Weights(tissues, present[keys.index(common)])
            numbers[common] = 0
        for k in range(len(tissues)):
            rows = slice(int(offsets[k]), int(offsets[k + 1]))
            _scan_into(weights.base[k], block, z, effect, rows, start, stop, dtype)
        for key in dict.fromkeys(keys):
            number = numbers.setdefault(key, len(numbers))
            columns = np.array([c for c, other in enumerate(keys) if other == key])
            of_phenotype[start + columns] = number
            if number:
                found = weights.corrections(present[columns[0]])
                others[number] = _differing(found, offsets)
                _correct(found, block, columns, z, effect, offsets, start)
        if n_h2 is not None:
            factor = np.sqrt(np.nan_to_num(1.0 + np.maximum(phi[:, None], 0.0) * n_h2[None, start:stop], nan=1.0))
            z[:, start:stop] = z[:, start:stop] / factor
    assert weights is not None  # noqa: S101 - there is a phenotype
    patterns = Patterns(
        of_phenotype,
        np.concatenate([w.var_g for w in weights.base]),
        np.concatenate([w.n_snps_used for w in weights.base]),
        np.concatenate([w.in_gwas for w in weights.base]),
        others,
    )
    mismatch = _mismatch(gwas, of_phenotype, weights.base_present)
    return GeneScan(gwas, offsets, z, effect, patterns, phi, n_h2, mismatch)


def _mismatch(
    gwas: PreparedGwas, pattern: Int[np.ndarray, " phenotypes"], present: Bool[np.ndarray, " entries"]
) -> tuple[LdMismatch, ...]:
    """Compare the LD of every model's panel with some GWAS of the base pattern, evenly spaced."""
    alike = np.flatnonzero(pattern == 0)
    some = alike[:: max(1, -(-alike.size // _CHECKED))]
    z = np.column_stack([np.asarray(gwas.z[p], dtype=np.float64) for p in some])
    return tuple(measure_ld_mismatch(tissue, present, z) for tissue in gwas.models.tissues)


def _matrix(path: Path, shape: tuple[int, int], dtype: str, *, on_disk: bool) -> Any:
    if not on_disk:
        return np.empty(shape, dtype=dtype)
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)


class _Buffers:
    """Memory for blocks of as many phenotypes."""

    def __init__(self, gwas: PreparedGwas, size: int) -> None:
        shape = (gwas.models.snps.n_entries, size)
        self._present = np.empty(shape[::-1], dtype=bool)
        self._z = np.empty(shape, dtype=gwas.z.dtype)
        self._beta = None if gwas.beta is None else np.empty(shape, dtype=gwas.beta.dtype)

    def read(
        self, gwas: PreparedGwas, start: int, stop: int
    ) -> tuple[Bool[np.ndarray, "some entries"], PhenotypeBlock]:
        """Return which SNPs some GWAS have, and their z and beta; valid until the next call."""
        raw = np.asarray(gwas.z[start:stop])
        present = np.isfinite(raw, out=self._present)
        z = turn_block(raw, present, self._z)
        if gwas.beta is None or self._beta is None:
            return present, PhenotypeBlock(z, None)
        return present, PhenotypeBlock(z, turn_block(np.asarray(gwas.beta[start:stop]), present, self._beta))


def _scan_into(
    weights: GeneWeights, block: PhenotypeBlock, z: Any, effect: Any, rows: slice, start: int, stop: int, dtype: str
) -> None:
    """Scan into a stretch of the matrices, through a dense block: rows of a memory map are far apart."""
    shape = (rows.stop - rows.start, stop - start)
    found = np.empty(shape, dtype=dtype)
    effects = None if effect is None else np.empty(shape, dtype=dtype)
    scan_genes(weights, block, found, effects)
    z[rows, start:stop] = found
    if effect is not None:
        effect[rows, start:stop] = effects


def _differing(
    found: list[tuple[Int[np.ndarray, " _genes"], GeneWeights]], offsets: Int[np.ndarray, " tissues_and_one"]
) -> tuple[Any, Any, Any, Any]:
    return (
        np.concatenate([offsets[k] + genes for k, (genes, _) in enumerate(found)]),
        np.concatenate([w.var_g for _, w in found]),
        np.concatenate([w.n_snps_used for _, w in found]),
        np.concatenate([w.in_gwas for _, w in found]),
    )


def _correct(
    found: list[tuple[Int[np.ndarray, " _genes"], GeneWeights]],
    block: PhenotypeBlock,
    columns: Int[np.ndarray, " columns"],
    z: Any,
    effect: Any,
    offsets: Int[np.ndarray, " tissues_and_one"],
    start: int,
) -> None:
    """Replace the results of genes whose SNPs the pattern of some phenotypes lacks."""
    beta = None if block.beta is None else np.ascontiguousarray(block.beta[:, columns])
    mine = PhenotypeBlock(np.ascontiguousarray(block.z[:, columns]), beta)
    for k, (genes, weights) in enumerate(found):
        if not genes.size:
            continue
        part = np.empty((genes.size, columns.size))
        effects = None if effect is None else np.empty(part.shape)
        scan_genes(weights, mine, part, effects)
        place = np.ix_(offsets[k] + genes, start + columns)
        z[place] = part
        if effect is not None:
            effect[place] = effects
