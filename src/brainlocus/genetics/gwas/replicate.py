"""Discovery and replication: whether the leads hold in other people."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from brainlocus.core.errors import SchemaError
from brainlocus.core.results import ResultTable

__all__ = ["join_replication"]


def join_replication(leads: ResultTable, replication: ResultTable, *, alpha: float = 0.05) -> ResultTable:
    """Join discovery leads with their tests in the replication people.

    A lead replicates when its effect has the same sign and its replication p is below ``alpha / K``, K being
    the number of leads. Where the two name the effect allele the other way round, the replication beta
    changes its sign.

    Parameters
    ----------
    leads
        trait, variant_id, effect_allele, other_allele, beta, neg_log10_p (and more, kept).
    replication
        The same columns and standard_error, one row per trait and variant; rows beyond the leads are ignored.

    Returns
    -------
    ResultTable
        The leads with replication_beta, replication_standard_error, replication_neg_log10_p (NaN where the
        lead was not tested), replicated, and status (ok, not_tested, other_alleles).

    Raises
    ------
    SchemaError
        A column is absent, or a trait and variant occur twice in the replication.
    """
    found = _by_key(replication)
    n_leads = len(leads)
    threshold = -np.log10(alpha / max(n_leads, 1))
    beta, error, p = np.full(n_leads, np.nan), np.full(n_leads, np.nan), np.full(n_leads, np.nan)
    status = np.full(n_leads, "not_tested", dtype="<U16")
    keys = zip(leads["trait"].tolist(), leads["variant_id"].tolist(), strict=True)
    for k, key in enumerate(keys):
        row = found.get(key)
        if row is None:
            continue
        same = _orientation(leads, k, replication, row)
        status[k] = "ok" if same else "other_alleles"
        if same:
            beta[k] = same * replication["beta"][row]
            error[k] = replication["standard_error"][row]
            p[k] = replication["neg_log10_p"][row]
    agrees: Float[np.ndarray, " leads"] = np.sign(beta) * np.sign(leads["beta"])
    columns = dict(leads.columns) | {
        "replication_beta": beta,
        "replication_standard_error": error,
        "replication_neg_log10_p": p,
        "replicated": (agrees > 0) & (p > threshold),
        "status": status,
    }
    return ResultTable(columns)


def _by_key(table: ResultTable) -> Mapping[tuple[str, str], int]:
    rows: dict[tuple[str, str], int] = {}
    for row, key in enumerate(zip(table["trait"].tolist(), table["variant_id"].tolist(), strict=True)):
        if key in rows:
            raise SchemaError(f"Trait {key[0]!r} and variant {key[1]!r} occur twice in the replication results.")
        rows[key] = row
    return rows


def _orientation(leads: ResultTable, k: int, replication: ResultTable, row: int) -> int:
    """Return 1 for the same effect allele, -1 for swapped ones, 0 for other alleles."""
    lead = (str(leads["effect_allele"][k]), str(leads["other_allele"][k]))
    other = (str(replication["effect_allele"][row]), str(replication["other_allele"][row]))
    return 1 if lead == other else -1 if lead == other[::-1] else 0
