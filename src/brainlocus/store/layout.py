"""Where things lie in a store, and how each table is laid out on disk.

A store is a folder that is written once and then only read. Everything in it is Parquet, JSON or NIfTI, so
that it outlives this software. Large tables name a variant by `vid` (its rank in ``variants.parquet``) and a
phenotype by `pid`; file names are computed from these numbers, never searched for.
"""

import re
from typing import Any, Final

import pyarrow as pa

__all__ = [
    "ASSOC_SCHEMA",
    "BY_VARIANT_SCHEMA",
    "FORMAT_VERSION",
    "GWAS_SCHEMA",
    "HERITABILITY_SCHEMA",
    "HITS_SCHEMA",
    "LOCI_SCHEMA",
    "MAPS_SCHEMA",
    "MODELS_SCHEMA",
    "PHENOTYPES_SCHEMA",
    "PHENOTYPE_ID",
    "REGIONS_SCHEMA",
    "ROW_GROUP",
    "VARIANTS_PER_FILE",
    "VARIANTS_SCHEMA",
    "by_phenotype",
    "by_variant",
    "chromosome_code",
    "chromosome_name",
    "manhattan",
    "parquet_options",
    "qq",
]

FORMAT_VERSION: Final = "1.0"
"""Major.minor; a reader refuses another major version."""

PHENOTYPE_ID: Final = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.~-]{0,63}$")
"""A public phenotype, region or map identifier; safe in a URL and in a file name."""

ROW_GROUP: Final = 65_536
"""Rows of a row group of ``by_phenotype``: 129 groups for 8.4 million variants."""
VARIANTS_PER_FILE: Final = 16_384
"""Variants of a ``by_variant`` file."""
VARIANTS_PER_GROUP: Final = 128
"""Variants of a row group of a ``by_variant`` file: 128 groups a file, below the 250 from which the footer is slow."""

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
    hemisphere=_STR,
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

_DELTA = frozenset({"vid", "pid"})


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
