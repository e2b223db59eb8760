"""The genetic commands from the command line: a small cohort with planted variants, and bad input."""

import json
from pathlib import Path

import numpy as np
import pytest

from brainlocus.cli.main import main
from brainlocus.core import Column, PhenotypeTable, SampleIndex, VariantTable
from brainlocus.core.text import text_array
from brainlocus.io import PgenWriter, read_grm, read_results, read_table, write_table
from brainlocus.pipeline.full_store import full_traits, read_full

N, M, CAUSAL = 600, 900, (100, 500)


def command(*arguments):
    """Run a command and return its exit code."""
    try:
        main([str(a) for a in arguments])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    rng = np.random.default_rng(0)
    people = SampleIndex.of([f"sub-{k:04d}" for k in range(N)])
    calls = rng.binomial(2, rng.uniform(0.2, 0.8, M)[:, None], (M, N)).astype(np.float32)
    for j in range(1, M):
        if j % 30:  # LD within runs of 30
            copy = rng.random(N) < 0.8
            calls[j] = np.where(copy, calls[j - 1], calls[j])
    age = rng.uniform(40, 80, N)
    a = 0.6 * calls[CAUSAL[0]] + 0.03 * age + rng.normal(size=N)
    b = 0.6 * calls[CAUSAL[1]] + rng.normal(size=N)
    b[rng.random(N) < 0.1] = np.nan
    calls[7, : N // 2] = np.nan  # a bad variant
    calls[rng.random(calls.shape) < 0.005] = np.nan
    variants = VariantTable(
        np.array(["1"] * 450 + ["2"] * 450), np.arange(M) * 10_000 + 1, text_array(["A"] * M), text_array(["C"] * M),
        text_array([f"rs{k}" for k in range(M)]), "GRCh37",
    )  # fmt: skip
    with PgenWriter(folder / "g", people, variants, np.ones(N, dtype=np.int8)) as out:
        out.append(calls)
    write_table(PhenotypeTable(people, (Column("a", a), Column("b", b), Column("age", age))), folder / "traits.tsv")
    (folder / "discovery.txt").write_text("\n".join(people.ids[:400].tolist()))
    (folder / "replication.txt").write_text("\n".join(people.ids[400:].tolist()))
    return folder


def test_quality_control_components_relationships_heritability(cohort, tmp_path, capsys):
    g = cohort / "g.pgen"
    assert command("genotypes", "qc", g, "--max-heterozygosity-sd", "6", "--out", tmp_path / "qc") == 0
    variants = read_results(tmp_path / "qc/variants.parquet")
    assert variants["reason"][7] == "variant_missing"
    assert "rs7" not in (tmp_path / "qc/keep.variants").read_text().split()
    assert len((tmp_path / "qc/keep.samples").read_text().split()) == N
    assert (tmp_path / "qc/flow.tsv").read_text().startswith("step\tpeople\tvariants\nstart\t600\t900\n")
    manifest = json.loads((tmp_path / "qc.json").read_text())
    assert manifest["counts"]["variants_left_out"]["variant_missing"] == 1
    assert capsys.readouterr().out.startswith("600 of 600 people and 897 of 900 variants pass\n")
    keep = tmp_path / "qc/variants.parquet"
    assert command("genotypes", "pca", g, "--variants", keep, "--components", "3", "--out", tmp_path / "pca") == 0
    assert read_table(tmp_path / "pca/scores.parquet").names == ("PC1", "PC2", "PC3")
    assert command("genotypes", "grm", g, "--variants", keep, "--out", tmp_path / "kin") == 0
    grm = read_grm(tmp_path / "kin.grm.bin")
    assert len(grm.samples) == N
    assert np.diag(grm.matrix).mean() == pytest.approx(
        1, abs=0.15
    )  # copied calls are not in Hardy-Weinberg proportions
    h2 = tmp_path / "h2.tsv"
    run = ("heritability", "greml", tmp_path / "kin.grm.bin", cohort / "traits.tsv", "--columns", "a,b")
    assert command(*run, "--formula", "age", "--out", h2) == 0
    table = read_results(h2)
    assert table["trait"].tolist() == ["a", "b"]
    assert table["status"].tolist() == ["ok", "ok"]
    assert (table["h2"] > 0).all()


def test_pruning_kinship_and_projected_components(cohort, tmp_path, capsys):
    g = cohort / "g.pgen"
    regions = tmp_path / "regions.bed"
    regions.write_text("# the beginning of chromosome 2\nchr2\t4500000\t5000000\tinversion\n\n")
    prune = ("genotypes", "prune", g, "--r2", "0.3", "--exclude-regions", regions)
    assert command(*prune, "--out", tmp_path / "prune.txt") == 0
    kept = (tmp_path / "prune.txt").read_text().split()
    counts = json.loads((tmp_path / "prune.txt.json").read_text())["counts"]
    assert counts["variants_kept"] == len(kept)
    assert counts["variants_not_chosen"] == {"in_excluded_regions": 50}
    assert not {f"rs{k}" for k in range(450, 500)} & set(kept)
    assert capsys.readouterr().out == f"{len(kept)} of 850 variants stay\n"
    kb = ("genotypes", "prune", g, "--window", "100", "--kb", "--out", tmp_path / "kb.txt")
    assert command(*kb) == 0
    assert 0 < len((tmp_path / "kb.txt").read_text().split()) < M
    kinship = ("genotypes", "kinship", g, "--max-missing", "0.2", "--prefer", cohort / "discovery.txt")
    assert command(*kinship, "--figures", "--out", tmp_path / "kinship") == 0
    assert "Fewer than 1,000 variants" in capsys.readouterr().out
    pairs = read_results(tmp_path / "kinship/pairs.parquet")
    assert set(pairs.names) == {"participant_1", "participant_2", "kinship", "n_variants", "ibs0", "degree"}
    unrelated = set((tmp_path / "kinship/unrelated.txt").read_text().split())
    close = pairs.take(pairs["kinship"] > 0.0884)  # few independent variants: chance makes relatives
    both = zip(close["participant_1"].tolist(), close["participant_2"].tolist(), strict=True)
    assert not any(a in unrelated and b in unrelated for a, b in both)
    assert 0.5 * N < len(unrelated) < N
    pca = ("genotypes", "pca", g, "--fit", cohort / "discovery.txt", "--variants", tmp_path / "prune.txt")
    assert command(*pca, "--components", "4", "--figures", "--out", tmp_path / "pca") == 0
    assert "Fitted on 400, projected 200 others" in capsys.readouterr().out
    scores = read_table(tmp_path / "pca/scores.parquet")
    assert len(scores.samples) == N
    assert all(np.isfinite(c.values).all() for c in scores.columns)
    header = (tmp_path / "pca/eigenvalues.tsv").read_text().splitlines()[0]
    assert header == "component\teigenvalue\tlocal_share\tlocal_region"
    for figure in ("kinship/kinship.png", "pca/components.png"):
        assert (tmp_path / figure).stat().st_size > 5000


def test_quality_control_with_relatives_and_status(cohort, tmp_path):
    status = tmp_path / "status.tsv"
    status.write_text("participant_id\tcase\n" + "".join(f"sub-{k:04d}\t{k % 2}\n" for k in range(500)))
    qc = ("genotypes", "qc", cohort / "g.pgen", "--unrelated", cohort / "discovery.txt", "--status", status)
    more = ("--status-column", "case", "--min-mac", "10", "--figures", "--max-heterozygosity-sd", "6")
    assert command(*qc, *more, "--out", tmp_path / "qc") == 0
    flow = (tmp_path / "qc/flow.tsv").read_text().splitlines()
    assert flow[1:3] == ["start\t600\t900", "relatives\t400\t900"]
    assert "missingness by status" in (tmp_path / "qc/flow.tsv").read_text()
    people = read_results(tmp_path / "qc/samples.parquet")
    assert (people["reason"] == "related").sum() == 200
    assert np.isfinite(read_results(tmp_path / "qc/variants.parquet")["status_missing_neg_log10_p"]).all()
    assert (tmp_path / "qc/flow.png").stat().st_size > 5000
    assert json.loads((tmp_path / "qc.json").read_text())["counts"]["settings"]["min_mac"] == 10


def scan(cohort, out, *more):
    return command(
        "gwas",
        "run",
        cohort / "g.pgen",
        cohort / "traits.tsv",
        "--columns",
        "a,b",
        "--formula",
        "age",
        "--out",
        out,
        *more,
    )


def test_scan_clump_and_replicate(cohort, tmp_path):
    discovery = tmp_path / "discovery"
    assert scan(cohort, discovery, "--keep", cohort / "discovery.txt", "--hits", "0.05", "--full") == 0
    hits, traits = read_results(discovery / "hits.parquet"), read_results(discovery / "traits.parquet")
    assert traits["trait"].tolist() == ["a", "b"]
    assert traits["n"][0] == 400
    assert 320 < traits["n"][1] < 400
    top = {t: hits["variant_id"][hits["trait"] == t][0] for t in ("a", "b")}
    assert top == {"a": f"rs{CAUSAL[0]}", "b": f"rs{CAUSAL[1]}"}
    full = read_full(discovery / "full", "b")
    assert full_traits(discovery / "full") == ["a", "b"]
    assert len(full) == M
    row = full["variant_id"] == top["b"]
    first = hits.take(hits["trait"] == "b")
    assert full["beta"][row][0] == pytest.approx(first["beta"][0], rel=1e-5)
    assert full["neg_log10_p"][row][0] == pytest.approx(first["neg_log10_p"][0], rel=1e-5)
    qq = read_results(discovery / "qq.parquet")
    assert qq["n_tests"].sum() == traits["n_tests"].sum()
    assert len(read_results(discovery / "variants.parquet")) == M
    loci = tmp_path / "loci"
    assert command("loci", "clump", discovery / "hits.parquet", "--genotypes", cohort / "g.pgen", "--out", loci) == 0
    leads = read_results(loci / "leads.parquet")
    assert leads["variant_id"].tolist() == list(top.values())
    found = read_results(loci / "loci.parquet")
    assert found["top_variant_id"].tolist() == list(top.values())
    again = tmp_path / "replication"
    more = ("--keep", cohort / "replication.txt", "--variants", loci / "leads.parquet", "--hits", "1")
    assert scan(cohort, again, *more) == 0
    assert len(read_results(again / "variants.parquet")) == 2
    out = tmp_path / "replicated.tsv"
    assert command("gwas", "replicate", loci / "leads.parquet", again / "hits.parquet", "--out", out) == 0
    assert read_results(out)["replicated"].all()


def test_executors_and_shards_give_the_same_files(cohort, tmp_path):
    assert scan(cohort, tmp_path / "one", "--full", "--hits", "0.1", "--missing", "exact") == 0
    more = (
        "--full",
        "--hits",
        "0.1",
        "--missing",
        "exact",
        "--shard-size",
        "200",
        "--executor",
        "threads",
        "--threads",
        "2",
    )
    assert scan(cohort, tmp_path / "two", *more) == 0
    one, two = (read_results(tmp_path / name / "hits.parquet") for name in ("one", "two"))
    assert one["variant_id"].tolist() == two["variant_id"].tolist()
    np.testing.assert_allclose(one["beta"], two["beta"], rtol=1e-10)
    a, b = (read_full(tmp_path / name / "full", "a") for name in ("one", "two"))
    np.testing.assert_allclose(a["beta"], b["beta"], atol=1e-5)


def test_an_interrupted_scan_is_resumed(cohort, tmp_path, monkeypatch):
    from brainlocus.pipeline.steps import gwas

    real, seen = gwas.scan_shard, []

    def dies(plan, source, start, stop, **more):
        seen.append(start)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return real(plan, source, start, stop, **more)

    # Serial, so that the order of the parts is known.
    more = ("--shard-size", "200", "--executor", "serial")
    monkeypatch.setattr(gwas, "scan_shard", dies)
    assert scan(cohort, tmp_path / "out", *more) == 130
    assert not (tmp_path / "out").exists()
    assert scan(cohort, tmp_path / "out", *more, "--resume") == 0
    assert seen == [0, 200, 400, 400, 600, 800]
    monkeypatch.setattr(gwas, "scan_shard", real)
    assert scan(cohort, tmp_path / "whole", *more) == 0
    for name in ("hits.parquet", "traits.parquet", "variants.parquet", "qq.parquet"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


BAD = [
    (("gwas", "run", "{g}x", "{t}"), "expected a file or folder at .*g.pgenx"),
    (("gwas", "run", "{t}", "{t}"), "ending in .bed, .pgen, .bgen, .vcf.gz, .vcf or .bcf, found the extension .tsv"),
    (("gwas", "run", "{g}", "{t}", "--columns", "c"), "no column matches 'c'"),
    (("gwas", "run", "{g}", "{t}", "--formula", "agee"), "'agee', which is not a column"),
    (("gwas", "run", "{g}", "{t}", "--keep", "{s}"), "none of its 2 participants .no-one, nobody, ...."),
    (("gwas", "run", "{g}", "{t}", "--variants", "{s}"), "none of its variants is among the 900"),
    (("gwas", "run", "{g}", "{t}", "--hits", "2"), "--hits: "),
    (("gwas", "run", "{g}", "{i}"), "column 'a' has an infinite value"),
    (("genotypes", "qc", "{g}", "--preset", "covarianc"), "Did you mean 'covariance'"),
    (("genotypes", "pca", "{g}", "--components", "600"), "600 were asked of 600 people"),
    (("genotypes", "qc", "{g}", "--status", "{t}", "--status-column", "age"), "expected 1 .case., 0 .control."),
    (("genotypes", "qc", "{g}", "--status", "{t}"), "there is no column 'status'"),
    (("genotypes", "prune", "{g}", "--r2", "1"), "--r2: "),
    (("genotypes", "prune", "{g}", "--window", "1"), "A window of 1 moved by 50 compares nothing"),
    (("genotypes", "prune", "{g}", "--exclude-long-range-ld"), "known on GRCh37 and GRCh38; .* on 'unknown'"),
    (("genotypes", "prune", "{g}", "--exclude-regions", "{s}"), "line 1: expected chromosome, start and end"),
    (("genotypes", "prune", "{g}", "--keep", "{s}"), "none of its 2 participants"),
    (("genotypes", "kinship", "{g}", "--cutoff", "0.01"), "expected at least --min-kinship .0.0221., found 0.01"),
    (("genotypes", "kinship", "{g}", "--prefer", "{s}"), "none of its 2 participants"),
    (("genotypes", "pca", "{g}", "--fit", "{s}"), "none of its 2 participants"),
    (("genotypes", "grm", "{g}", "--min-maf", "0.5", "--max-missing", "0"), "No variant is left"),
    (("heritability", "greml", "{s}", "{t}"), "Expected a GRM file at|expected"),
    (("loci", "clump", "{t}", "--genotypes", "{g}"), "expected a column|not registered"),
    (("loci", "clump", "{h}", "--genotypes", "{g}", "--p2", "1e-9"), "p2 .1e-09. must not be below p1"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_bad_input_is_one_message_and_nothing_written(cohort, tmp_path, capsys, arguments, message):
    import re

    stranger = tmp_path / "strangers.txt"
    stranger.write_text("nobody\nno-one\n")
    infinite = tmp_path / "infinite.tsv"
    infinite.write_text("participant_id\ta\n" + "".join(f"sub-{k:04d}\t{'inf' if k == 5 else k}\n" for k in range(N)))
    hits = tmp_path / "hits.tsv"
    hits.write_text("trait\tvariant_id\tneg_log10_p\na\trs5\t9.5\n")
    names = {"g": cohort / "g.pgen", "t": cohort / "traits.tsv", "s": stranger, "i": infinite, "h": hits}
    filled = [a.format(**names) for a in arguments]
    before = sorted(p.name for p in tmp_path.iterdir())
    assert command(*filled, "--out", tmp_path / "out") == 2
    captured = capsys.readouterr()
    assert re.search(message, captured.err), captured.err
    assert "Traceback" not in captured.err
    assert sorted(p.name for p in Path(tmp_path).iterdir()) == before
