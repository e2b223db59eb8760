"""Where things lie in a store, and how each table is laid out on disk.

A store is a folder that is written once and then only read. Everything in it is Parquet, JSON or NIfTI, so
that it outlives this software. Large tables name a variant by `vid` (its rank in ``variants.parquet``) and a
phenotype by `pid`; file names are computed from these numbers, never searched for.
"""

import re
from typing import Any, Final

import pyarrow as pa

from brainlocus.core import SCOPES

__all__ = [
    "ANNOTATION_SCHEMA",
    "ASSOC_SCHEMA",
    "BY_VARIANT_SCHEMA",
    "FORMAT_VERSION",
    "GENES_PER_FILE",
    "GENES_SCHEMA",
    "GENE_GROUP",
    "GENE_TESTS_SCHEMA",
    "GWAS_SCHEMA",
    "HERITABILITY_SCHEMA",
    "HITS_SCHEMA",
    "LOCI_SCHEMA",
    "MAPS_SCHEMA",
    "MAP_ID",
    "MODELS_SCHEMA",
    "PHENOTYPES_PER_FILE",
    "PHENOTYPES_SCHEMA",
    "PHENOTYPE_ID",
    "REGIONS_SCHEMA",
    "ROW_GROUP",
    "SCOPES_SCHEMA",
    "TISSUES_SCHEMA",
    "TISSUE_MODELS_SCHEMA",
    "VARIANTS_PER_FILE",
    "VARIANTS_SCHEMA",
    "by_phenotype",
    "by_variant",
    "chromosome_code",
    "chromosome_name",
    "manhattan",
    "parquet_options",
    "q_column",
    "qq",
    "tests_of_genes",
    "tests_of_phenotypes",
]

FORMAT_VERSION: Final = "1.1"
"""Major.minor; a reader refuses another major version."""

PHENOTYPE_ID: Final = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.~+():,=@-]{0,127}$")
"""A public phenotype identifier; safe in the path of a URL. The names of published imaging phenotypes have such
characters: ``aparc-a2009s_lh_area_G+S-paracentral``, ``rfMRI_(ICA25_edge_1)``."""
MAP_ID: Final = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.~-]{0,63}$")
"""A map's identifier, which is also the name of its file."""

ROW_GROUP: Final = 65_536
"""Rows of a row group of ``by_phenotype``: 129 groups for 8.4 million variants."""
VARIANTS_PER_FILE: Final = 16_384
"""Variants of a ``by_variant`` file."""
VARIANTS_PER_GROUP: Final = 128
"""Variants of a row group of a ``by_variant`` file: 128 groups a file, below the 250 from which the footer is slow."""

GENES_PER_FILE: Final = 64
"""Genes of a ``twas/by_gene`` file: 22,815 genes make 357 files."""
PHENOTYPES_PER_FILE: Final = 16
"""Phenotypes of a ``twas/by_phenotype`` file."""
GENE_GROUP: Final = 16_384
"""Rows of a row group of the files of gene associations, at the least."""

_SPECIAL = {"X": 23, "XY": 23, "Y": 24, "MT": 25}
_NAMES = {23: "X", 24: "Y", 25: "MT"}


def chromosome_code(name: str) -> int:
    """Return the GWAS-SSF number of a chromosome: 1..22, 23 = X, 24 = Y, 25 = MT; 0 for any other name.

    The pseudo-autosomal ``XY`` of PLINK counts as X, as GWAS-SSF has no number for it.
    """
    if name.isdigit() and len(name) <= 2 and 1 <= int(name) <= 22:
        return int(name)
    return _SPECIAL.get(name, 0)


def chromosome_name(code: int) -> str:
    """Return the plain name of a GWAS-SSF chromosome number."""
    return _NAMES.get(code, str(code))


def by_phenotype(pid: int) -> str:
    """Return the relative path of one phenotype's associations."""
    return f"gwas/by_phenotype/p{pid:05d}.parquet"


def by_variant(block: int) -> str:
    """Return the relative path of the associations of variants ``block * 16384`` and on."""
    return f"gwas/by_variant/b{block:05d}.parquet"


def manhattan(pid: int) -> str:
    """Return the relative path of one phenotype's pre-computed Manhattan plot."""
    return f"gwas/manhattan/p{pid:05d}.bin"


def qq(pid: int) -> str:
    """Return the relative path of one phenotype's QQ points."""
    return f"gwas/qq/p{pid:05d}.json"


def tests_of_genes(block: int) -> str:
    """Return the relative path of the associations of genes ``block * 64`` and on."""
    return f"twas/by_gene/g{block:05d}.parquet"


def tests_of_phenotypes(block: int) -> str:
    """Return the relative path of the gene associations of phenotypes ``block * 16`` and on."""
    return f"twas/by_phenotype/p{block:05d}.parquet"


def q_column(scope: str) -> str:
    """Return the column with -log10 q of a scope."""
    return f"nlog10q_{scope.replace('-', '_')}"


def _schema(**fields: pa.DataType) -> pa.Schema:
    return pa.schema([pa.field(name, kind) for name, kind in fields.items()])


_I32, _I64, _F32, _F64, _STR, _BOOL, _U8 = (
    pa.int32(),
    pa.int64(),
    pa.float32(),
    pa.float64(),
    pa.string(),
    pa.bool_(),
    pa.uint8(),
)

VARIANTS_SCHEMA = _schema(
    vid=_I32, chrom=_U8, pos=_I32, ref=_STR, alt=_STR, rsid=_I64, name=_STR, af=_F32, info=_F32, gene_nearest=_I32
)
PHENOTYPES_SCHEMA = _schema(
    pid=_I32,
    phenotype_id=_STR,
    label=_STR,
    description=_STR,
    modality=_STR,
    atlas=_STR,
    scale=_I32,
    parcel_index=_I32,
    side=_STR,
    region=_STR,
    measurement=_STR,
    category=_STR,
    units=_STR,
    transform=_STR,
    n=_I32,
    h2=_F64,
    h2_se=_F64,
    n_hits=_I32,
    n_loci=_I32,
    n_variants=_I32,
    max_nlog10p=_F64,
    lambda_gc=_F64,
    n_gene_associations=_I32,
    n_genes=_I32,
    n_genes_significant=_I32,
    map_id=_STR,
    has_gwas=_BOOL,
    masked=_BOOL,
)
GWAS_SCHEMA = _schema(vid=_I32, beta=_F32, se=_F32, nlog10p=_F32)
BY_VARIANT_SCHEMA = _schema(vid=_I32, pid=_I32, beta=_F32, se=_F32, nlog10p=_F32)
_PLACE = {"chrom": _U8, "pos": _I32, "ref": _STR, "alt": _STR, "rsid": _I64, "name": _STR, "af": _F32}
"""What tables of single variants repeat of ``variants.parquet``, so that a page needs no second read."""
HITS_SCHEMA = _schema(pid=_I32, vid=_I32, **_PLACE, beta=_F32, se=_F32, nlog10p=_F32)
LOCI_SCHEMA = _schema(
    pid=_I32,
    locus=_I32,
    start=_I32,
    stop=_I32,
    vid=_I32,
    **_PLACE,
    beta=_F32,
    se=_F32,
    nlog10p=_F32,
    n_lead=_I32,
    n_independent=_I32,
    replicated=_BOOL,
    method=_STR,
)
ASSOC_SCHEMA = _schema(
    pid=_I32,
    trait_id=_STR,
    category=_STR,
    test=_STR,
    effect=_F64,
    effect_type=_STR,
    se=_F64,
    p_nlog10=_F64,
    n=_I32,
    n_cases=_I32,
    n_controls=_I32,
    suppressed=_BOOL,
    fdr=_F64,
    bonferroni_pass=_BOOL,
)
HERITABILITY_SCHEMA = _schema(pid=_I32, n=_I32, h2=_F64, h2_se=_F64, lrt=_F64, nlog10p=_F64, boundary=_BOOL)
REGIONS_SCHEMA = _schema(
    region_id=_STR,
    atlas=_STR,
    scale=_I32,
    parcel_index=_I32,
    name=_STR,
    hemisphere=_STR,
    n_voxels=_I32,
    volume_mm3=_F64,
    x_mm=_F64,
    y_mm=_F64,
    z_mm=_F64,
    map_id=_STR,
)
MAPS_SCHEMA = _schema(
    map_id=_STR,
    kind=_STR,
    label=_STR,
    atlas=_STR,
    scale=_I32,
    space=_STR,
    units=_STR,
    n=_I32,
    path=_STR,
    bytes=_I64,
    sha256=_STR,
)
MODELS_SCHEMA = _schema(
    model_id=_STR,
    task=_STR,
    features=_STR,
    metric=_STR,
    value=_F64,
    lower=_F64,
    upper=_F64,
    n=_I32,
    n_cases=_I32,
    folds=_I32,
    repeats=_I32,
)
ANNOTATION_SCHEMA = _schema(pid=_I32, name=_STR, value=_STR)
"""What the annotation of a phenotype says beside the columns of the catalogue."""
GENES_SCHEMA = _schema(
    gid=_I32,
    gene=_STR,
    gene_name=_STR,
    n_tissues=_I32,
    n_associations=_I32,
    n_phenotypes=_I32,
    n_significant=_I32,
    n_phenotypes_significant=_I32,
    n_tissues_significant=_I32,
    max_nlog10p=_F64,
    top_pid=_I32,
    top_tid=_I32,
)
"""``n_tissues`` have a model of the gene; associations are the tests that are kept; ``significant``: study-wide
Benjamini-Hochberg q up to 0.05, null where it is unknown."""
TISSUES_SCHEMA = _schema(tid=_I32, tissue=_STR, n_genes=_I32, n_associations=_I32, n_significant=_I32)
TISSUE_MODELS_SCHEMA = _schema(gid=_I32, tid=_I32, pred_perf_r2=_F32)
SCOPES_SCHEMA = _schema(
    scope=_STR, name=_STR, pid=_I32, tid=_I32, n_tests=_I64, n_associations=_I64, n_significant=_I64, given=_BOOL
)
"""One row for every set of tests that is corrected together; ``given``: q came with the results."""
GENE_TESTS_SCHEMA = _schema(
    gid=_I32,
    pid=_I32,
    tid=_I32,
    z=_F32,
    effect=_F32,
    nlog10p=_F32,
    **{q_column(scope): _F32 for scope in SCOPES},
)

_DELTA = frozenset({"vid", "pid", "gid", "tid"})


def parquet_options(schema: pa.Schema) -> dict[str, Any]:
    """Return the Parquet settings of a table: zstd 3, delta-coded keys, byte-split numbers, page index.

    Half-float columns are never used: DuckDB 2.0 cannot read their byte-split coding.
    """
    encoding: dict[str, str] = {}
    dictionary: list[str] = []
    for field in schema:
        if field.name in _DELTA:
            encoding[field.name] = "DELTA_BINARY_PACKED"
        elif pa.types.is_floating(field.type):
            encoding[field.name] = "BYTE_STREAM_SPLIT"
        else:
            dictionary.append(field.name)
    return {
        "compression": "zstd",
        "compression_level": 3,
        "use_dictionary": dictionary or False,
        "column_encoding": encoding,
        "write_statistics": True,
        "write_page_index": True,
    }
