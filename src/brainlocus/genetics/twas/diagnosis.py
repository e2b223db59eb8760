"""Why a GWAS and a model share no SNP: what their ids look like."""

import re
from collections.abc import Sequence

__all__ = ["explain_no_overlap", "genome_build_of", "id_style"]

_STYLES = (
    ("rsid", re.compile(r"^rs\d+$")),
    ("varID", re.compile(r"^(chr)?[\dXYM]{1,2}_\d+_[ACGT]+_[ACGT]+(_b\d+)?$", re.IGNORECASE)),
    ("chromosome:position:alleles", re.compile(r"^(chr)?[\dXYM]{1,2}:\d+[:_][ACGT]+[:_][ACGT]+$", re.IGNORECASE)),
    ("chromosome:position", re.compile(r"^(chr)?[\dXYM]{1,2}[:_]\d+$", re.IGNORECASE)),
    ("rsid with alleles", re.compile(r"^rs\d+[:_]")),
)
_BUILDS = {"37": "GRCh37", "19": "GRCh37", "38": "GRCh38"}


def id_style(name: str) -> str:
    """Return what kind of id a SNP has: ``rsid``, ``varID``, ``chromosome:position`` ... or ``other``.

    Examples
    --------
    >>> [id_style(name) for name in ("rs7412", "chr19_44908822_C_T_b38", "19:44908822")]
    ['rsid', 'varID', 'chromosome:position']
    """
    return next((style for style, shape in _STYLES if shape.match(name)), "other")


def genome_build_of(names: Sequence[str]) -> str:
    """Return the genome build that varIDs end in, empty where they say none or disagree.

    Examples
    --------
    >>> genome_build_of(["chr19_44908822_C_T_b38"])
    'GRCh38'
    """
    found = {match[1] for name in names if (match := re.search(r"_b(\d+)$", name))}
    return _BUILDS.get(found.pop(), "") if len(found) == 1 else ""


def explain_no_overlap(model_names: Sequence[str], gwas_names: Sequence[str]) -> str:
    """Return, in words, why no SNP of the models was found in a GWAS, and what to do.

    Parameters
    ----------
    model_names, gwas_names
        Some names of each side.
    """
    ours = id_style(model_names[0]) if model_names else "none"
    theirs = id_style(gwas_names[0]) if gwas_names else "none"
    text = (
        f"the models name SNPs {', '.join(model_names)} ({ours}), the GWAS {', '.join(gwas_names) or 'nothing'} "
        f"({theirs}). "
    )
    if not gwas_names:
        return text + "Is the column of ids the right one, and is the file whole?"
    build = genome_build_of(model_names)
    if ours == theirs == "varID":
        ours_chr, theirs_chr = model_names[0].startswith("chr"), gwas_names[0].startswith("chr")
        if ours_chr != theirs_chr:
            return text + "Only one side writes chr before the chromosome."
        other = genome_build_of(gwas_names)
        if build and other and build != other:
            return text + f"The models are of {build}, the GWAS of {other}: lift it over."
        return text + "The ids look alike: are both of the same genome build and chromosomes?"
    if ours == "rsid" and theirs == "varID":
        return text + "Name the SNPs of the models by --snp-key varID (with the covariance that has such names)."
    if ours == "varID" and theirs == "rsid":
        return text + "Name the SNPs of the models by --snp-key rsid (with the covariance that has such names)."
    if "position" in theirs:
        where = f" of {build}" if build else ""
        return text + (
            f"Match by place: --snp-key varID --match position, with chromosome and position{where} in the GWAS."
        )
    if ours == theirs == "rsid":
        return text + "The ids look alike: does the GWAS cover the chromosomes of the models?"
    return text + "Give the column of rsids with --columns snp=NAME, or match by place with --match position."
