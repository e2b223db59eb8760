"""Clumping against a literal reading of its definitions."""

import numpy as np
import pytest
from tests.reference.genotypes import naive_haplotype_r2, naive_r2

from brainlocus.core import ArrayGenotypes, ResultTable, SampleIndex, VariantTable, concat_results
from brainlocus.core.text import text_array
from brainlocus.genetics.loci import ClumpSettings, clump, haplotype_r2, pairwise_r2


def panel(rng, *, n=80, m=60, missing=0.03):
    """Return two chromosomes of variants in blocks of LD."""
    haplotypes = rng.random((2, m, n)) < 0.4
    for j in range(1, m):
        if j % 12:
            copy = rng.random((2, n)) < 0.85
            haplotypes[:, j] = np.where(copy, haplotypes[:, j - 1], haplotypes[:, j])
    dosage = haplotypes.sum(axis=0).astype(np.float32)
    dosage[rng.random(dosage.shape) < missing] = np.nan
    position = np.concatenate([np.sort(rng.integers(1, 2_000_000, m // 2)) for _ in range(2)])
    variants = VariantTable(
        np.array(["1"] * (m // 2) + ["2"] * (m // 2)), position, text_array(["A"] * m), text_array(["G"] * m),
        text_array([f"v{k}" for k in range(m)]), "GRCh37",
    )  # fmt: skip
    return ArrayGenotypes(SampleIndex.of(range(n)), variants, dosage)


def results_for(source, trait, p):
    return ResultTable(
        {"trait": text_array([trait] * p.size), "variant_id": source.variants.variant_id, "neg_log10_p": p}
    )


def naive_clump(source, p, rules):
    """Return owner of each claimed variant, leads, and loci, by the definitions read literally."""
    table, dosage = source.variants, source.dosage
    chromosome, position = table.chromosome.tolist(), table.position.tolist()
    order = sorted(range(p.size), key=lambda k: (-p[k], int(chromosome[k]), position[k]))

    def close(a, b, threshold):
        near = chromosome[a] == chromosome[b] and abs(position[a] - position[b]) <= rules.kb * 1000
        return near and naive_r2(dosage[a].astype(float), dosage[b].astype(float)) >= threshold

    owner = {}
    for k in order:
        if k in owner or p[k] < -np.log10(rules.p1):
            continue
        owner[k] = k
        for other in order:
            if other not in owner and p[other] >= -np.log10(rules.p2) and close(k, other, rules.r2):
                owner[other] = k
    independent = [k for k in order if owner.get(k) == k]
    lead_of = {}
    for k in independent:
        if k in lead_of:
            continue
        lead_of[k] = k
        for other in independent:
            if other not in lead_of and close(k, other, rules.lead_r2):
                lead_of[other] = k
    spans = {}
    for k, index in owner.items():
        spans.setdefault(lead_of[index], []).append(k)
    loci = []
    for members in sorted(spans.values(), key=lambda v: (int(chromosome[v[0]]), min(position[k] for k in v))):
        chrom, start = chromosome[members[0]], min(position[k] for k in members)
        if loci and loci[-1][0] == chrom and start - loci[-1][2] < rules.kb * 1000:
            loci[-1] = (chrom, loci[-1][1], max(loci[-1][2], *(position[k] for k in members)), loci[-1][3] + members)
        else:
            loci.append((chrom, start, max(position[k] for k in members), members))
    return owner, set(lead_of.values()), loci


@pytest.mark.parametrize("seed", range(6))
def test_clumps_leads_and_loci_are_the_definitions(seed):
    rng = np.random.default_rng(seed)
    source = panel(rng)
    rules = ClumpSettings(p1=1e-4, p2=0.05, r2=0.5, lead_r2=0.1, kb=200.0)
    p = np.round(rng.exponential(2.5, 60), 1)  # ties
    other = rng.exponential(1.0, 60)
    found = clump(concat_results([results_for(source, "z", p), results_for(source, "a", other)]), source, rules)
    for trait, values in (("z", p), ("a", other)):
        owner, leads, loci = naive_clump(source, values, rules)
        mine = found.variants.take(found.variants["trait"] == trait)
        row = {f"v{k}": k for k in range(60)}
        ours = {
            row[v]: row[i] for v, i in zip(mine["variant_id"].tolist(), mine["index_variant_id"].tolist(), strict=True)
        }
        assert ours == owner
        role = {row[v]: r for v, r in zip(mine["variant_id"].tolist(), mine["role"].tolist(), strict=True)}
        assert {k for k, r in role.items() if r == "lead"} == leads
        assert {k for k, r in role.items() if r in ("lead", "independent")} == set(owner.values())
        assert all((values[k] >= 4) == (r != "candidate") for k, r in role.items())
        table = found.loci.take(found.loci["trait"] == trait)
        assert list(
            zip(table["chromosome"].tolist(), table["start"].tolist(), table["stop"].tolist(), strict=True)
        ) == [locus[:3] for locus in loci]
        for number, (_, _, _, members) in enumerate(loci):
            assert table["n_variants"][number] == len(members)
            assert values[row[str(table["top_variant_id"][number])]] == max(values[k] for k in members)
    assert list(dict.fromkeys(found.loci["trait"].tolist())) in (["z", "a"], ["z"])


def test_variants_outside_the_panel_and_no_signal():
    source = panel(np.random.default_rng(1))
    extra = ResultTable(
        {"trait": text_array(["t", "t"]), "variant_id": text_array(["v3", "rsX"]), "neg_log10_p": np.array([9.0, 30.0])}
    )
    found = clump(extra, source)
    assert found.n_absent == 1
    assert found.loci["top_variant_id"].tolist() == ["v3"]
    nothing = clump(results_for(source, "t", np.full(60, 2.0)), source)
    assert len(nothing.loci) == len(nothing.variants) == 0
    assert "n_lead" in nothing.loci.names


def test_settings_are_checked():
    with pytest.raises(ValueError, match=r"p2 .1e-09. must not be below p1"):
        ClumpSettings(p2=1e-9)
    with pytest.raises(ValueError, match=r"r2 lies in .0, 1., found 0"):
        ClumpSettings(r2=0.0)
    with pytest.raises(ValueError, match="kb is a distance"):
        ClumpSettings(kb=-1.0)


@pytest.mark.parametrize("seed", range(4))
def test_r2_of_counts_and_of_haplotypes(seed):
    rng = np.random.default_rng(seed)
    dosage = panel(rng, n=50, m=14, missing=0.1).dosage
    counts, haplotypes = pairwise_r2(dosage[0], dosage), haplotype_r2(dosage[0], dosage)
    for j in range(14):
        x, y = dosage[0].astype(float), dosage[j].astype(float)
        assert counts[j] == pytest.approx(naive_r2(x, y), abs=1e-12)
        assert haplotypes[j] == pytest.approx(naive_haplotype_r2(x, y), abs=1e-6)
    constant = np.ones((1, 50), dtype=np.float32)
    assert np.isnan(pairwise_r2(dosage[0], constant))[0]
    assert np.isnan(haplotype_r2(dosage[0], constant * 2))[0]
