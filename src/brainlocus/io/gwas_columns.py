"""Which column of a GWAS file is what: presets of programs and resources, told by the header, or given by name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

from brainlocus.core.errors import SchemaError, nearest

__all__ = ["PRESETS", "GwasColumns", "choose_columns"]


@dataclass(frozen=True, slots=True)
class GwasColumns:
    """Names of columns in a file; empty where it has none."""

    snp: str = ""
    chromosome: str = ""
    position: str = ""
    effect_allele: str = ""
    other_allele: str = ""
    z: str = ""
    beta: str = ""
    odds_ratio: str = ""
    """Its logarithm is the beta."""
    standard_error: str = ""
    p: str = ""
    neg_log10_p: str = ""
    sign: str = ""
    """Its sign is the sign of the effect, where there is no beta."""
    frequency: str = ""
    """Frequency of the effect allele."""
    alternate: str = ""
    """PLINK 2: the allele that is the other one where `effect_allele` is `other_allele` (REF)."""

    test: str = ""
    """Column that is ``ADD`` for the effect of the allele; rows of covariates and of other models are left out."""

    def used(self) -> dict[str, str]:
        """Return the columns that are named."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name)}


PRESETS: dict[str, GwasColumns] = {
    "brainlocus": GwasColumns(
        snp="variant_id",
        chromosome="chromosome",
        position="position",
        effect_allele="effect_allele",
        other_allele="other_allele",
        beta="beta",
        standard_error="standard_error",
        neg_log10_p="neg_log10_p",
        frequency="effect_allele_frequency",
    ),
    "gwas-ssf": GwasColumns(
        snp="rsid",
        chromosome="chromosome",
        position="base_pair_location",
        effect_allele="effect_allele",
        other_allele="other_allele",
        z="z_score",
        beta="beta",
        odds_ratio="odds_ratio",
        standard_error="standard_error",
        p="p_value",
        neg_log10_p="neg_log_10_p_value",
        frequency="effect_allele_frequency",
    ),
    # BGENIE counts the second allele.
    "big40": GwasColumns(
        snp="rsid",
        chromosome="chr",
        position="pos",
        effect_allele="a2",
        other_allele="a1",
        beta="beta",
        standard_error="se",
        neg_log10_p="pval(-log10)",
    ),
    "regenie": GwasColumns(
        snp="ID",
        chromosome="CHROM",
        position="GENPOS",
        effect_allele="ALLELE1",
        other_allele="ALLELE0",
        beta="BETA",
        standard_error="SE",
        neg_log10_p="LOG10P",
        frequency="A1FREQ",
        test="TEST",
    ),
    "plink2": GwasColumns(
        snp="ID",
        chromosome="#CHROM",
        position="POS",
        effect_allele="A1",
        other_allele="REF",
        alternate="ALT",
        z="Z_STAT",
        beta="BETA",
        odds_ratio="OR",
        standard_error="SE",
        p="P",
        neg_log10_p="LOG10_P",
        frequency="A1_FREQ",
        test="TEST",
    ),
    "saige": GwasColumns(
        snp="MarkerID",
        chromosome="CHR",
        position="POS",
        effect_allele="Allele2",
        other_allele="Allele1",
        beta="BETA",
        standard_error="SE",
        p="p.value",
        frequency="AF_Allele2",
    ),
    "metal": GwasColumns(
        snp="MarkerName",
        effect_allele="Allele1",
        other_allele="Allele2",
        z="Zscore",
        beta="Effect",
        standard_error="StdErr",
        p="P-value",
        frequency="Freq1",
    ),
    "glgc": GwasColumns(
        snp="MarkerName",
        effect_allele="Allele1",
        other_allele="Allele2",
        z="GC.Zscore",
        beta="Effect",
        standard_error="StdErr",
        p="GC.Pvalue",
    ),
    "enigma": GwasColumns(
        snp="SNP",
        chromosome="CHR",
        position="BP",
        effect_allele="A1",
        other_allele="A2",
        beta="BETA1",
        standard_error="SE",
        p="P",
        frequency="FREQ1",
    ),
    "ldsc": GwasColumns(snp="SNP", effect_allele="A1", other_allele="A2", z="Z"),
}
"""By name, in the order in which they are tried. A preset's columns that a file lacks are left out."""

_TELLING: dict[str, tuple[str, ...]] = {
    "brainlocus": ("variant_id", "effect_allele", "neg_log10_p"),
    "gwas-ssf": ("base_pair_location", "effect_allele"),
    "big40": ("rsid", "a1", "a2", "pval(-log10)"),
    "regenie": ("ALLELE0", "ALLELE1", "LOG10P"),
    "plink2": ("#CHROM", "ID", "REF", "ALT", "A1"),
    "saige": ("MarkerID", "Allele1", "Allele2", "p.value"),
    "metal": ("MarkerName", "Allele1", "Allele2", "P-value"),
    "glgc": ("MarkerName", "Allele1", "Allele2", "GC.Zscore"),
    "enigma": ("SNP", "A1", "A2", "BETA1"),
    "ldsc": ("SNP", "A1", "A2", "Z"),
}
"""Columns by which a file is told."""

_GENERAL: dict[str, tuple[str, ...]] = {
    "snp": ("rsid", "snp", "snpid", "rs", "markername", "variant_id", "id", "marker"),
    "chromosome": ("chr", "chrom", "#chrom", "chromosome"),
    "position": ("pos", "bp", "position", "base_pair_location", "genpos"),
    "effect_allele": ("effect_allele", "ea", "alt_effect", "effectallele"),
    "other_allele": ("other_allele", "non_effect_allele", "nea", "oa", "otherallele", "noneffect_allele"),
    "z": ("z", "zscore", "z_score", "zstat"),
    "beta": ("beta", "effect", "b", "log_odds"),
    "odds_ratio": ("or", "odds_ratio"),
    "standard_error": ("se", "stderr", "standard_error"),
    "p": ("p", "pval", "pvalue", "p_value", "p-value", "p.value"),
    "neg_log10_p": ("neg_log10_p", "log10p", "neglog10p", "mlogp", "neg_log_10_p_value"),
    "frequency": ("eaf", "effect_allele_frequency", "effect_allele_freq"),
}
"""Names that mean one thing wherever they occur. A1 and A2 do not: which one is counted differs between programs."""


def _general(names: Sequence[str]) -> GwasColumns:
    lower = {name.lower(): name for name in reversed(names)}
    found = {key: next((lower[n] for n in known if n in lower), "") for key, known in _GENERAL.items()}
    return GwasColumns(**found)


def choose_columns(
    names: Sequence[str], *, preset: str = "auto", given: Mapping[str, str] | None = None, where: str = "GWAS"
) -> tuple[str, GwasColumns]:
    """Return the preset's name (or ``names``) and the columns of a file.

    Parameters
    ----------
    names
        Header of the file.
    preset
        One of `PRESETS`, or ``auto``: the first whose telling columns the header has, else names that mean one thing.
    given
        Field of `GwasColumns` to column name: replaces what the preset says.

    Raises
    ------
    SchemaError
        Unknown preset or field; a named column is absent; SNP, alleles or statistics are lacking.
    """
    if preset != "auto" and preset not in PRESETS:
        raise SchemaError(
            f"There is no preset {preset!r}.{nearest(preset, list(PRESETS))} Known: {', '.join(PRESETS)}."
        )
    told = preset
    if preset == "auto":
        told = next((k for k, tell in _TELLING.items() if set(tell) <= set(names)), "names")
    columns = PRESETS[told] if told != "names" else _general(names)
    columns = replace(columns, **{k: "" for k, v in columns.used().items() if v not in names})
    known = [f.name for f in fields(GwasColumns)]
    for key, name in (given or {}).items():
        if key not in known:
            raise SchemaError(f"--columns: there is no field {key!r}.{nearest(key, known)} Fields: {', '.join(known)}.")
        if name and name not in names:
            raise SchemaError(f"{where}: there is no column {name!r}.{nearest(name, list(names))}")
    columns = replace(columns, **dict(given or {}))
    _check(columns, names, where)
    return told, columns


def _check(columns: GwasColumns, names: Sequence[str], where: str) -> None:
    shown = ", ".join(names[:14])
    advice = "Name them with --columns effect_allele=...,other_allele=... or choose a --preset."
    if not columns.snp and not (columns.chromosome and columns.position):
        raise SchemaError(
            f"{where}: expected a column of SNP ids (or chromosome and position), found {shown}. {advice}"
        )
    if not columns.effect_allele or not columns.other_allele:
        raise SchemaError(
            f"{where}: which columns are the effect and the other allele is not known of {shown}. {advice}"
        )
    effect = columns.beta or columns.odds_ratio
    has_p = (columns.p or columns.neg_log10_p) and (effect or columns.sign)
    if not (columns.z or has_p or (effect and columns.standard_error)):
        raise SchemaError(
            f"{where}: expected z, or beta (or odds ratio) with a standard error, or p with a sign; found {shown}. "
            f"{advice}"
        )
