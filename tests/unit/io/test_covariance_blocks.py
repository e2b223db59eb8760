"""Covariances read gene by gene are those read at once, whatever the size of a block; models without weights."""

import gzip
import sqlite3

import numpy as np
import pytest

from brainlocus.core import FormatError
from brainlocus.io import iter_covariances, read_covariance, read_expression_model


def _pairs(covariance):
    found = {}
    for g, gene in enumerate(covariance.genes.tolist()):
        for k in range(covariance.offsets[g], covariance.offsets[g + 1]):
            key = (gene, *sorted((covariance.names[covariance.first[k]], covariance.names[covariance.second[k]])))
            found[key] = covariance.value[k]
    return found


def _text(n_genes=30, seed=0):
    rng = np.random.default_rng(seed)
    lines = ["GENE RSID1 RSID2 VALUE"]
    for g in range(n_genes):
        names = [f"rs{k}" for k in rng.choice(50, rng.integers(1, 9), replace=False)]
        for i, a in enumerate(names):
            lines += [f"ENSG{g} {a} {b} {'NA' if rng.random() < 0.05 else f'{rng.normal():.6f}'}" for b in names[i:]]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("block", [64, 300, 5_000, 1 << 20])
@pytest.mark.parametrize("name", ["covariance.txt", "covariance.txt.gz"])
def test_blocks_change_nothing(tmp_path, block, name):
    path = tmp_path / name
    path.write_bytes(gzip.compress(_text().encode()) if name.endswith(".gz") else _text().encode())
    whole = read_covariance(path)
    parts = list(iter_covariances(path, block_bytes=block))
    assert len(parts) > 1 or block > 1000
    assert [g for part in parts for g in part.genes.tolist()] == whole.genes.tolist()
    joined = {}
    for part in parts:
        joined |= _pairs(part)
    assert joined == _pairs(whole)


def test_errors_name_the_line_in_the_file(tmp_path):
    path = tmp_path / "covariance.txt"
    lines = _text().splitlines()
    path.write_text("\n".join([*lines, lines[1]]) + "\n")
    with pytest.raises(FormatError, match="expected the rows of a gene together, found ENSG0 again"):
        list(iter_covariances(path, block_bytes=300))
    path.write_text("\n".join([*lines, lines[-1]]) + "\n")
    with pytest.raises(FormatError, match=f"line {len(lines) + 1}: .* is listed a second time"):
        list(iter_covariances(path, block_bytes=300))
    path.write_text("\n".join([*lines, "ENSG99 rs1 rs1 x"]) + "\n")
    with pytest.raises(FormatError, match="expected lines of GENE RSID1 RSID2 VALUE"):
        list(iter_covariances(path, block_bytes=300))


def test_a_model_without_weights(tmp_path):
    path = tmp_path / "empty.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE weights (rsid TEXT, gene TEXT, weight REAL, ref_allele TEXT, eff_allele TEXT)")
    connection.execute("CREATE TABLE extra (gene TEXT)")
    connection.commit()
    connection.close()
    with pytest.raises(FormatError, match="expected weights, found an empty table"):
        read_expression_model(path)
    model = read_expression_model(path, allow_empty=True)
    assert (model.tissue, model.genes.size, model.weight.size) == ("empty", 0, 0)
