"""gwas gxe, epistasis and cnv from the command line: planted interactions, and bad input."""

import json
import re

import numpy as np
import pytest

from brainlocus.cli.main import main
from brainlocus.core import Column, PhenotypeTable, SampleIndex, VariantTable
from brainlocus.core.text import text_array
from brainlocus.io import BedWriter, read_results, write_table

N, M = 700, 300
PAIR, MODIFIED = (40, 220), 120


def command(*arguments):
    try:
        main([str(a) for a in arguments])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    rng = np.random.default_rng(4)
    people = SampleIndex.of([f"sub-{k:04d}" for k in range(N)])
    calls = rng.binomial(2, rng.uniform(0.2, 0.8, M)[:, None], (M, N)).astype(np.float32)
    calls[0] = rng.binomial(2, 0.01, N)
    age, smoker = rng.uniform(40, 80, N), rng.integers(0, 2, N).astype(float)
    product = (calls[PAIR[0]] - 1) * (calls[PAIR[1]] - 1)
    y = 0.9 * product + 0.02 * age + rng.normal(size=N)
    z = 50 + 0.05 * (age - 60) * calls[MODIFIED] + rng.normal(size=N)
    z[rng.random(N) < 0.1] = np.nan
    calls[rng.random(calls.shape) < 0.003] = np.nan
    variants = VariantTable(
        np.array(["1"] * 150 + ["2"] * 150), np.tile(np.arange(150), 2) * 20_000 + 1, text_array(["A"] * M),
        text_array(["C"] * M), text_array([f"rs{k}" for k in range(M)]), "GRCh37",
    )  # fmt: skip
    with BedWriter(folder / "g", people, variants, np.ones(N, dtype=np.int8)) as out:
        out.append(calls)
    columns = (Column("y", y), Column("z", z), Column("age", age), Column("smoker", smoker), Column("case", smoker))
    write_table(PhenotypeTable(people, columns), folder / "t.tsv")
    (folder / "pairs.tsv").write_text(f"variant_id\tvariant_id_2\nrs{PAIR[0]}\trs{PAIR[1]}\nrs1\trs2\nrs1\trsX\n")
    (folder / "first.txt").write_text(f"rs{PAIR[1]}\n")
    return folder


def pairs(cohort, out, *more):
    model = ("--columns", "y,z", "--formula", "age", "--report-p", "1e-5")
    return command("gwas", "epistasis", cohort / "g.bed", cohort / "t.tsv", *model, "--out", out, *more)


def test_the_planted_pair_is_found_and_replicated(cohort, tmp_path, capsys):
    assert pairs(cohort, tmp_path / "all") == 0
    captured = capsys.readouterr()
    assert re.search(r"299 x 299 variants: 32,350 pairs x 2 traits, 700 people; 0.05 / pairs = ", captured.err)
    hits, traits = (read_results(tmp_path / f"all/{n}.parquet") for n in ("pairs", "traits"))
    top = hits.take(hits["trait"] == "y")
    assert (top["variant_id"][0], top["variant_id_2"][0]) == (f"rs{PAIR[0]}", f"rs{PAIR[1]}")
    assert top["beta"][0] == pytest.approx(0.9, abs=4 * top["standard_error"][0])
    assert top["scan_neg_log10_p"][0] == pytest.approx(top["neg_log10_p"][0], rel=0.05)
    assert top["robust_neg_log10_p"][0] > 8
    assert traits["trait"].tolist() == ["y", "z"]
    assert traits["n"].tolist()[0] == N
    assert ((traits["lambda_gc"] > 0.9) & (traits["lambda_gc"] < 1.1)).all()
    manifest = json.loads((tmp_path / "all.json").read_text())
    assert traits["n_tests"].tolist() == [manifest["counts"]["pairs"]] * 2  # none within 1 Mb
    assert read_results(tmp_path / "all/qq.parquet")["n_tests"].sum() == traits["n_tests"].sum()
    assert (tmp_path / "all/qq.png").exists()
    again = tmp_path / "again"
    assert pairs(cohort, again, "--pairs", cohort / "pairs.tsv") == 3  # one pair is not there
    found = read_results(again / "pairs.parquet")
    assert len(found) == 4
    assert found["beta"][0] == pytest.approx(top["beta"][0])


def test_other_designs(cohort, tmp_path):
    assert pairs(cohort, tmp_path / "one", "--first", cohort / "first.txt") == 0
    hits = read_results(tmp_path / "one/pairs.parquet")
    assert {hits["variant_id"][0], hits["variant_id_2"][0]} == {f"rs{k}" for k in PAIR}
    tests = read_results(tmp_path / "one/traits.parquet")["n_tests"]
    assert (tests < M).all()
    assert pairs(cohort, tmp_path / "few", "--marginal-p", "0.1") == 0
    few = read_results(tmp_path / "few/traits.parquet")["n_tests"]
    assert (few < 0.05 * M * M / 2).all()
    assert (few > 0).all()


def test_executors_and_resuming_give_the_same_pairs(cohort, tmp_path, monkeypatch):
    from brainlocus.pipeline.steps import epistasis

    assert pairs(cohort, tmp_path / "one") == 0
    monkeypatch.setattr(epistasis, "_ROWS", (100, 100))
    monkeypatch.setattr(epistasis, "_TILE", 50)
    assert pairs(cohort, tmp_path / "two", "--executor", "threads", "--threads", "2") == 0
    one, two = (read_results(tmp_path / f"{n}/pairs.parquet") for n in ("one", "two"))
    assert one["variant_id"].tolist() == two["variant_id"].tolist()
    np.testing.assert_allclose(one["beta"], two["beta"], rtol=1e-12)
    with monkeypatch.context() as patch:  # a last part of one variant, which has no pair of its own
        patch.setattr(epistasis, "_ROWS", (298, 298))
        assert pairs(cohort, tmp_path / "uneven") == 0
        uneven = read_results(tmp_path / "uneven/pairs.parquet")
        assert uneven["variant_id_2"].tolist() == one["variant_id_2"].tolist()
    real, seen = epistasis.scan_tile, []

    def dies(*arguments, **more):
        seen.append(1)
        if len(seen) == 15:
            raise KeyboardInterrupt
        return real(*arguments, **more)

    monkeypatch.setattr(epistasis, "scan_tile", dies)
    assert pairs(cohort, tmp_path / "out", "--executor", "serial") == 130
    assert pairs(cohort, tmp_path / "out", "--executor", "serial", "--resume") == 0
    assert (tmp_path / "out/pairs.parquet").read_bytes() == (tmp_path / "two/pairs.parquet").read_bytes()


def gxe(cohort, out, *more):
    model = ("--columns", "y,z", "--exposure", "age,smoker", "--formula", "age + smoker", "--hits", "1e-4")
    return command("gwas", "gxe", cohort / "g.bed", cohort / "t.tsv", *model, "--out", out, *more)


def test_the_planted_modifier_is_found(cohort, tmp_path, capsys):
    assert gxe(cohort, tmp_path / "out") == 0
    hits, traits = (read_results(tmp_path / f"out/{n}.parquet") for n in ("hits", "traits"))
    own = hits.take((hits["trait"] == "z") & (hits["exposure"] == "age"))
    assert own["variant_id"][0] == f"rs{MODIFIED}"
    assert own["interaction_beta"][0] == pytest.approx(0.05, abs=4 * own["interaction_standard_error"][0])
    assert own["error_model"][0] == "hlm"  # 700 people: fewer than 1,000 copies
    assert own["hc3_neg_log10_p"][0] > 8
    assert own["slope_low"][0] < 0 < own["slope_high"][0]
    assert 50 < own["johnson_neyman_low"][0] < 60 < own["johnson_neyman_high"][0] < 70
    assert own["johnson_neyman_side"][0] == "outside"
    assert min(own["rank_normal_neg_log10_p"][0], own["log_neg_log10_p"][0]) > 8
    assert list(zip(traits["exposure"], traits["trait"], strict=True)) == [
        ("age", "y"), ("age", "z"), ("smoker", "y"), ("smoker", "z"),
    ]  # fmt: skip
    assert ((traits["lambda_gc"] > 0.7) & (traits["lambda_gc"] < 1.3)).all()
    counts = json.loads((tmp_path / "out.json").read_text())["counts"]
    assert counts["tests_by_status"]["few_carriers"] > 0
    assert (tmp_path / "out/top.png").exists()
    variants = read_results(tmp_path / "out/variants.parquet")
    assert len(variants) == 2 * M
    assert variants["status"][0] == "few_carriers"
    assert variants["status"][MODIFIED] == "ok"
    assert "median lambda of the interaction" in capsys.readouterr().out
    more = ("--shard-size", "64", "--executor", "threads", "--threads", "2")
    assert gxe(cohort, tmp_path / "two", *more) == 0
    other = read_results(tmp_path / "two/hits.parquet")
    assert other["variant_id"].tolist() == hits["variant_id"].tolist()
    np.testing.assert_allclose(other["interaction_beta"], hits["interaction_beta"], rtol=1e-9)


def test_binary_traits_are_refused_or_differences_of_risk(cohort, tmp_path, capsys):
    base = ("gwas", "gxe", cohort / "g.bed", cohort / "t.tsv", "--columns", "case", "--exposure", "age")
    assert command(*base, "--out", tmp_path / "no") == 2
    assert "case hold 0 and 1, and the model is for quantitative traits" in capsys.readouterr().err
    assert command(*base, "--binary", "linear", "--out", tmp_path / "yes") == 0
    assert (
        command(*base[:-4], "--columns", "y", "--exposure", "age", "--terms", "main", "--out", tmp_path / "main") == 0
    )
    assert "Without products of covariates" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["gxe", "epistasis"])
def test_no_variant_is_an_empty_result(cohort, tmp_path, verb):
    empty = tmp_path / "none.tsv"
    empty.write_text("variant_id\tbeta\n")
    more = ("--exposure", "age") if verb == "gxe" else ()
    base = ("gwas", verb, cohort / "g.bed", cohort / "t.tsv", "--columns", "y", *more, "--variants", empty)
    assert command(*base, "--out", tmp_path / "out") == 0
    assert read_results(tmp_path / "out/traits.parquet")["n_tests"].tolist() == [0]
    assert len(read_results(tmp_path / ("out/hits.parquet" if verb == "gxe" else "out/pairs.parquet"))) == 0


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("copies")
    rng = np.random.default_rng(9)
    people = [f"p{k}" for k in range(400)]
    d = np.zeros(400)
    d[:40], d[40:60], d[60:63] = -1, 1, 2
    age, head = rng.uniform(40, 80, 400), rng.normal(1500, 100, 400)
    y = -0.9 * d + 0.01 * age + 0.002 * head + rng.normal(size=400)
    lines = ["ID\tchr\tstart\tend\tcopies\tnsnp\tscore"]
    lines += [f"p{k}\t16\t29500000\t30200000\t{int(2 + d[k])}\t60\t30" for k in range(63)]
    lines += [f"p{k}\t1\t146500000\t147400000\t1\t60\t30" for k in range(100, 103)]
    lines += ["p200\t16\t29500000\t29560000\t1\t60\t30", "p201\t16\t29500000\t30200000\t1\t4\t30"]
    lines += [f"p399\t2\t{k}000000\t{k}100000\t1\t60\t30" for k in range(1, 60)]
    (folder / "calls.tsv").write_text("\n".join(lines) + "\n")
    (folder / "loci.tsv").write_text(
        "chromosome\tstart\tend\tname\n16\t29600000\t30200000\t16p11.2\n1\t146500000\t147400000\t1q21.1\n"
    )
    (folder / "genes.tsv").write_text(
        "chr\tstart\tend\tgene\tLOEUF\n16\t29670000\t29680000\tKCTD13\t0.6\n16\t29820000\t29830000\tTAOK2\t0.2\n"
    )
    columns = (Column("y", y), Column("w", rng.normal(size=400)), Column("age", age), Column("icv", head))
    write_table(PhenotypeTable(SampleIndex.of(people), columns), folder / "t.tsv")
    return folder


def cnv(folder, out, *more):
    model = ("--columns", "y,w", "--formula", "age + icv", "--head-size", "icv", "--build", "GRCh37")
    return command("gwas", "cnv", folder / "calls.tsv", folder / "t.tsv", *model, "--out", out, *more)


def test_carriers_and_burden(copies, tmp_path):
    loci, genes = ("--loci", copies / "loci.tsv"), ("--genes", copies / "genes.tsv")
    assert cnv(copies, tmp_path / "out", *loci, *genes, "--loci-build", "GRCh37", "--permutations", "200") == 0
    table = read_results(tmp_path / "out/associations.parquet")

    def row(locus, trait, model, term, adjusted):
        names = ("cnv_locus", "trait", "model", "term", "adjusted")
        wanted = (locus, trait, model, term, adjusted)
        found = np.all([table[n] == v for n, v in zip(names, wanted, strict=True)], axis=0)
        assert found.sum() == 1
        return {n: table[n][found][0] for n in table.names}

    dose = row("16p11.2", "y", "dosage", "dosage", "icv")
    assert (dose["n_deletion"], dose["n_duplication"]) == (40, 23)
    assert dose["n"] == 399 - 3  # one array fails, three carry another locus
    assert dose["beta"] < 0
    assert dose["neg_log10_p"] > 6
    assert np.isnan(dose["permutation_p"])
    assert row("16p11.2", "y", "dosage", "dosage", "")["neg_log10_p"] < dose["neg_log10_p"]
    gain = row("16p11.2", "y", "indicators", "duplication", "icv")
    assert gain["beta"] < 0
    assert gain["permutation_p"] == pytest.approx(1 / 201)
    assert gain["n_permutations"] == 200
    both = row("16p11.2", "y", "indicators", "deletion and duplication", "icv")
    assert both["neg_log10_p"] > 6
    rare = row("1q21.1", "y", "indicators", "deletion", "")
    assert rare["status"] == "descriptive"
    assert np.isnan(rare["neg_log10_p"])
    assert np.isfinite(rare["mean_difference"])
    burden = row("1/LOEUF", "y", "burden", "deletion", "icv")
    genes = row("genes", "y", "burden", "deletion", "icv")
    assert burden["beta"] == pytest.approx(genes["beta"] * 2 / (1 / 0.6 + 5))
    carriers = read_results(tmp_path / "out/carriers.parquet")
    assert (carriers["cnv_locus"] == "16p11.2").sum() == 63
    samples = read_results(tmp_path / "out/samples.parquet")
    assert samples["reason"][399] == "too_many_calls"
    counts = json.loads((tmp_path / "out.json").read_text())["counts"]
    assert counts["calls_dropped"]["few_snps"] == 1
    assert (tmp_path / "out/dose.png").exists()


BAD = [
    (("gwas", "epistasis", "{g}", "{t}", "--first", "{f}"), "none of its 2 variants is among the"),
    (("gwas", "epistasis", "{g}", "{t}", "--pairs", "{t}"), "expected columns variant_id and variant_id_2"),
    (("gwas", "epistasis", "{g}", "{t}", "--report-p", "0"), "--report-p"),
    (("gwas", "gxe", "{g}", "{t}", "--exposure", "agee"), "no column 'agee'.*Did you mean 'age'"),
    (("gwas", "gxe", "{g}", "{t}"), "exposure"),
    (("gwas", "gxe", "{g}", "{t}", "--columns", "age", "--exposure", "age"), "no trait besides the exposure"),
    (("gwas", "cnv", "{c}", "{u}", "--build", "b", "--loci-build", "b"), "--loci .*--genes .*found neither"),
    (("gwas", "cnv", "{c}", "{u}", "--loci", "{l}", "--build", "GRCh37", "--loci-build", "38"), "on GRCh37, the"),
    (("gwas", "cnv", "{c}", "{t}", "--loci", "{l}", "--build", "b", "--loci-build", "b"), "none of its 69 people"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_bad_input_is_one_message_and_nothing_written(cohort, copies, tmp_path, capsys, arguments, message):
    names = {"g": cohort / "g.bed", "t": cohort / "t.tsv", "p": cohort / "pairs.tsv"}
    strangers = copies / "strangers.txt"
    strangers.write_text("rsX\nrsY\n")
    names |= {"f": strangers, "c": copies / "calls.tsv", "u": copies / "t.tsv", "l": copies / "loci.tsv"}
    assert command(*[a.format(**names) for a in arguments], "--out", tmp_path / "out") == 2
    captured = capsys.readouterr()
    assert re.search(message, captured.err), captured.err
    assert "Traceback" not in captured.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("method", ["correlation", "boost"])
def test_cases_and_controls(cohort, tmp_path, method):
    """A status made from the planted pair: the fast scans find it, logistic regression confirms it."""
    from brainlocus.io import open_genotypes, read_table

    table = read_table(cohort / "t.tsv")
    calls = np.nan_to_num(open_genotypes(cohort / "g.bed").read(0, M).dosage, nan=1.0)
    rng = np.random.default_rng(1)
    eta = 1.6 * (calls[PAIR[0]] - 1) * (calls[PAIR[1]] - 1)
    status = (rng.random(N) < 1 / (1 + np.exp(-eta))).astype(float)
    write_table(PhenotypeTable(table.samples, (Column("case", status), table.column("age"))), tmp_path / "t.tsv")
    model = ("--formula", "age", "--report-p", "1e-5", "--method", method)
    out = tmp_path / "out"
    assert command("gwas", "epistasis", cohort / "g.bed", tmp_path / "t.tsv", *model, "--out", out) == 0
    hits, traits = read_results(out / "pairs.parquet"), read_results(out / "traits.parquet")
    assert {hits["variant_id"][0], hits["variant_id_2"][0]} == {f"rs{k}" for k in PAIR}
    assert hits["neg_log10_p"][0] > 5
    assert hits["degrees_of_freedom"][0] == (1 if method == "correlation" else 4)
    if method == "correlation":
        assert hits["beta"][0] == pytest.approx(1.6, abs=4 * hits["standard_error"][0])
        assert traits["lambda_gc"][0] == pytest.approx(1, abs=0.1)
    assert traits["n_tests"][0] == 32_350
    bad = ("gwas", "epistasis", cohort / "g.bed", cohort / "t.tsv", "--columns", "y", "--method", method)
    assert command(*bad, "--out", tmp_path / "no") == 2
