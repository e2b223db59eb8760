"""Bad input of genetic commands: every case of methods/gwas.md section 10 is one message, or a run told what it did."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from brainlocus.cli.main import main
from brainlocus.core import Column, PhenotypeTable, SampleIndex, VariantTable
from brainlocus.core.text import text_array
from brainlocus.io import BedWriter, BgenWriter, PgenWriter, read_results, write_table
from tests.contracts.test_bgen import block_of, write_bgen
from tests.contracts.test_vcf import vcf_text

N, M = 60, 200
IDS = [f"{k:04d}" for k in range(N)]
FILES = {
    "bed": ("bed", "bim", "fam"),
    "pgen": ("pgen", "pvar", "psam"),
    "bgen": ("bgen", "sample", "bgen.bgi"),
    "vcf": ("vcf",),
}


def command(*arguments):
    """Run a command and return its exit code."""
    try:
        main([str(a) for a in arguments])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def variants(chromosome, ids=None):
    m = len(chromosome)
    return VariantTable(
        np.array(chromosome), np.arange(m) * 10_000 + 1, text_array(["A"] * m), text_array(["C"] * m),
        text_array([f"rs{k}" for k in range(m)] if ids is None else ids), "GRCh37",
    )  # fmt: skip


def genotypes(prefix, table, calls, ids=IDS):
    people = SampleIndex.of(ids)
    for writer in (BedWriter, PgenWriter, BgenWriter):
        with writer(prefix, people, table, np.ones(len(ids), dtype=np.int8)) as out:
            out.append(calls)
    prefix.with_suffix(".vcf").write_text(vcf_text(people, table, calls))


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("bad")
    rng = np.random.default_rng(3)
    calls = rng.binomial(2, rng.uniform(0.3, 0.7, M)[:, None], (M, N)).astype(np.float32)
    genotypes(root / "g", variants(["1"] * M), calls)
    columns = (
        Column("a", calls[3] + rng.normal(size=N)),
        Column("b", rng.normal(size=N)),
        Column("age", rng.uniform(40, 80, N)),
        Column("site", np.array(["s", "t"] * (N // 2)), "categorical"),
    )
    write_table(PhenotypeTable(SampleIndex.of(IDS), columns), root / "t.tsv")
    return root


def refused(capsys, folder, *arguments):
    """Check exit code 2, one message and nothing written; return the message."""
    before = {p: p.read_bytes() if p.is_file() else b"" for p in folder.rglob("*")}
    capsys.readouterr()
    assert command(*arguments, "--quiet") == 2, arguments
    captured = capsys.readouterr()
    assert captured.err.startswith("Error: "), captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""
    assert {p: p.read_bytes() if p.is_file() else b"" for p in folder.rglob("*")} == before
    return captured.err


def copy(root, folder, end):
    for other in FILES[end]:
        shutil.copy(root / f"g.{other}", folder / f"g.{other}")
    return folder / f"g.{end}"


DAMAGE = {
    ("bed", "half"): "g.bed: expected 3003 bytes for 200 variants x 60 people, found 1501. The file is truncated",
    ("bed", "magic"): "g.bed: expected the magic bytes 6c 1b of a .bed file, found 58 58",
    ("bed", "empty"): "expected the magic bytes 6c 1b of a .bed file, found nothing",
    ("pgen", "half"): "g.pgen: .*The file is damaged",
    ("pgen", "magic"): "g.pgen: expected the magic bytes 6c 1b of a .pgen file, found 58 58",
    ("pgen", "empty"): "expected the magic bytes 6c 1b of a .pgen file, found nothing",
    ("bgen", "half"): r"g.bgen: expected \d+ .*variant \d+ of 200 .*truncated",
    ("bgen", "magic"): "g.bgen: expected .*bgen",
    ("bgen", "empty"): "g.bgen: expected 8 more bytes in the header, found 0. The file is truncated",
    ("vcf", "half"): r"g.vcf, line \d+: expected 69 tab-separated columns, found \d+. The file is damaged",
    ("vcf", "magic"): "g.vcf, line 1: expected a VCF header",
    ("vcf", "empty"): "g.vcf: expected a VCF header .*, found none",
}
COMMANDS = (
    ("genotypes", "qc", "{g}"),
    ("genotypes", "pca", "{g}", "--components", "2"),
    ("genotypes", "convert", "{g}"),
    ("gwas", "run", "{g}", "{t}", "--columns", "a"),
    ("gwas", "gxe", "{g}", "{t}", "--columns", "a", "--exposure", "age"),
    ("gwas", "epistasis", "{g}", "{t}", "--columns", "a"),
)


@pytest.mark.parametrize(("end", "how"), DAMAGE)
def test_damaged_genotypes_of_every_format(root, tmp_path, capsys, end, how):
    path = copy(root, tmp_path, end)
    (tmp_path / "g.bgen.bgi").unlink(missing_ok=True)
    content = path.read_bytes()
    at = 16 if end == "bgen" else 0
    changed = {"half": content[: len(content) // 2], "magic": content[:at] + b"XXXX" + content[at + 4 :], "empty": b""}
    path.write_bytes(changed[how])
    for arguments in COMMANDS:
        filled = [a.format(g=path, t=root / "t.tsv") for a in arguments]
        out = tmp_path / ("o.pgen" if arguments[1] == "convert" else "o")
        assert re.search(DAMAGE[end, how], refused(capsys, tmp_path, *filled, "--out", out)), arguments


COUNTS = {
    ("bed", "bim"): "g.bed: expected 2988 bytes for 199 variants x 60 people, found 3003.*.bim/.fam belong to another",
    ("pgen", "pvar"): r"g.pgen: expected 60 people .*and 199 variants .*contains 200 variants\. The file is damaged or",
    ("pgen", "psam"): "g.pgen: expected 59 people .*contains 60 samples.*companions belong to another",
    ("bgen", "sample"): "g.sample: expected the 60 people of the BGEN file, found 59",
}


@pytest.mark.parametrize(("end", "beside"), COUNTS)
def test_companions_of_another_length(root, tmp_path, capsys, end, beside):
    path = copy(root, tmp_path, end)
    lines = (tmp_path / f"g.{beside}").read_text().splitlines(keepends=True)
    (tmp_path / f"g.{beside}").write_text("".join(lines[:-1]))
    run = ("gwas", "run", path, root / "t.tsv", "--columns", "a", "--out", tmp_path / "o")
    message = refused(capsys, tmp_path, *run)
    assert re.search(COUNTS[end, beside], message), message
    assert "b'" not in message
    (tmp_path / f"g.{beside}").write_text("".join([*lines, lines[-1].replace("0059", "0060")]))
    assert "expected" in refused(capsys, tmp_path, *run)
    (tmp_path / f"g.{beside}").write_text("".join([*lines[:-1], lines[-1].replace("0059", "0001")]))
    if beside in ("psam", "sample"):
        assert "'0001'" in refused(capsys, tmp_path, *run)


def people_of_a_fam_file_twice(root, tmp_path):
    path = copy(root, tmp_path, "bed")
    fam = tmp_path / "g.fam"
    fam.write_text(fam.read_text().replace("0059", "0001"))
    return path


def test_people_twice(root, tmp_path, capsys):
    path = people_of_a_fam_file_twice(root, tmp_path)
    message = refused(capsys, tmp_path, "gwas", "run", path, root / "t.tsv", "--columns", "a", "--out", tmp_path / "o")
    assert "g.fam, line 60: participant '0001' was already on line 2" in message


def cells(value_of):
    return "participant_id\ta\tage\n" + "".join(f"{i}\t{value_of(k)}\t{40 + k * 7 % 31}\n" for k, i in enumerate(IDS))


TRAITS = {
    "a typing mistake": (cells(lambda k: "1.5x" if k == 4 else k), "x.tsv: column 'a' .* line 6 has '1.5x'"),
    "infinite": (cells(lambda k: "inf" if k == 4 else k), "x.tsv: column 'a' has an infinite value in line 6"),
    "twice": (cells(lambda k: k) + "0004\t1\t2\n", "x.tsv, .*1 occur more than once: '0004'"),
    "strangers": ("participant_id\ta\tage\nx\t1\t2\ny\t2\t3\n", "g.bed, .*x.tsv: No participant id is shared"),
    "lost zeros": (cells(lambda k: k).replace("\n00", "\n"), "x.tsv: No participant id is shared.*leading zeros"),
    "one row": (
        "participant_id\ta\tage\n0001\t1.5\t2\n",
        "x.tsv: (No trait can be analysed: a .too_few|Exposure 'age')",
    ),
    "constant": (cells(lambda _: 3), r"x.tsv: No trait can be analysed.*a \(constant\)"),
    "nobody": (cells(lambda _: "NA"), "has a value of any trait .a.|x.tsv: Nobody has .* a value of a trait .a."),
    "text": (cells(lambda k: f"w{k}"), "--columns: expected numbers, but 'a' holds text"),
}


@pytest.mark.parametrize("case", TRAITS)
def test_tables_of_traits(root, tmp_path, capsys, case):
    content, expected = TRAITS[case]
    (tmp_path / "x.tsv").write_text(content)
    base = (root / "g.bed", tmp_path / "x.tsv", "--columns", "a", "--out", tmp_path / "o")
    for more in (("run",), ("epistasis",), ("gxe", "--exposure", "age")):
        message = refused(capsys, tmp_path, "gwas", more[0], *base, *more[1:])
        assert re.search(expected, message), message


def test_minus_nine_is_a_number_unless_it_is_said_or_plinks(root, tmp_path, capsys):
    (tmp_path / "x.tsv").write_text(cells(lambda k: "-9" if k < 5 else "-9.0" if k < 7 else k % 8))
    run = ("gwas", "run", root / "g.bed")
    for more, n in (((), 60), (("--na-values", "-9"), 53)):
        out = tmp_path / f"o{n}"
        assert command(*run, tmp_path / "x.tsv", "--columns", "a", *more, "--out", out, "--quiet") == 0
        assert read_results(out / "traits.parquet")["n"].tolist() == [n]
        asked = "-9 is the only negative value of a (7), and was taken as a number: is it --na-values -9?"
        assert (asked in capsys.readouterr().out) == (not more)
    lines = [line.split() for line in (root / "g.fam").read_text().splitlines()]
    text = "".join("\t".join([*f[:5], "-9" if k < 4 else f"{k % 5}.5"]) + "\n" for k, f in enumerate(lines))
    (tmp_path / "x.fam").write_text(text)
    assert command(*run, tmp_path / "x.fam", "--out", tmp_path / "fam", "--quiet") == 0
    assert read_results(tmp_path / "fam/traits.parquet")["n"].tolist() == [56]


def test_family_ids_are_no_trait(root, tmp_path):
    rows = "".join(f"{k}\t{i}\t{k % 7}\n" for k, i in enumerate(IDS))
    (tmp_path / "x.tsv").write_text(f"FID\tIID\ta\n{rows}")
    assert command("gwas", "run", root / "g.bed", tmp_path / "x.tsv", "--out", tmp_path / "o", "--quiet") == 0
    assert read_results(tmp_path / "o/traits.parquet")["trait"].tolist() == ["a"]


def test_covariates(root, tmp_path, capsys):
    """A constant one is dropped and named; too many are refused; with a formula only its columns are covariates."""
    t, one, many = root / "t.tsv", tmp_path / "one.tsv", tmp_path / "many.tsv"
    one.write_text("participant_id\tage\tone\n" + "".join(f"{i}\t{k * 7 % 13}\t1\n" for k, i in enumerate(IDS)))
    table = np.random.default_rng(0).normal(size=(N, 70))
    columns = tuple(Column(f"c{k}", table[:, k]) for k in range(70))
    write_table(PhenotypeTable(SampleIndex.of(IDS), columns), many)
    run = ("gwas", "run", root / "g.bed", t, "--columns", "a,b", "--out", tmp_path / "o", "--quiet")
    assert command(*run, "--covariates", one) == 0
    assert "Covariates dropped as constant or combinations of others: one" in capsys.readouterr().out
    assert json.loads((tmp_path / "o.json").read_text())["counts"]["covariates_dropped"] == ["one"]
    shutil.rmtree(tmp_path / "o")
    (tmp_path / "o.json").unlink()
    assert "many.tsv: There are 70 covariates for 60 people" in refused(capsys, tmp_path, *run, "--covariates", many)
    message = refused(capsys, tmp_path, *run, "--covariates", t)
    assert "leaves no trait" in message
    assert "--formula" in message
    assert command(*run, "--covariates", t, "--formula", "age") == 0
    first = (tmp_path / "o/hits.parquet").read_bytes()
    assert command(*run, "--formula", "age") == 0
    assert (tmp_path / "o/hits.parquet").read_bytes() == first
    message = refused(capsys, tmp_path, *run, "--columns", "a,age", "--formula", "age")
    assert "--columns: 'age' cannot be trait and covariate at once" in message
    message = refused(capsys, tmp_path, *run, "--formula", "age +")
    assert "The formula 'age +' cannot be read" in message
    assert message.count("\n") == 1


@pytest.mark.parametrize(("text", "fits"), [("2.0005", True), ("-0.0005", True), ("2.5", False), ("-0.01", False)])
def test_dosages_outside_their_range(root, tmp_path, capsys, text, fits):
    head = "##fileformat=VCFv4.3\n##FORMAT=<ID=DS,Number=A,Type=Float,Description=d>\n"
    head += "\t".join(["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT", *IDS]) + "\n"
    values = [text if k == 5 else str(k % 3) for k in range(N)]
    (tmp_path / "d.vcf").write_text(head + "\t".join(["1", "7", "rs1", "C", "A", ".", ".", ".", "DS", *values]) + "\n")
    run = ("gwas", "run", tmp_path / "d.vcf", root / "t.tsv", "--columns", "a", "--out", tmp_path / "o")
    if fits:
        assert command(*run, "--hits", "1", "--quiet") == 0
        assert len(read_results(tmp_path / "o/hits.parquet")) == 1
    else:
        expected = f"d.vcf, variant 'rs1' (record 1): dosages lie in [0, 2], found {text} of participant '0005'"
        assert expected in refused(capsys, tmp_path, *run)


def test_probabilities_above_one(root, tmp_path, capsys):
    """Rounding may take a sum to 1 + 2^-b, no further."""
    for extra, fits in ((0, True), (2, False)):
        pairs = [(100, 100)] * (N - 1) + [(155, 100 + extra)]
        blocks = [block_of([2] * N, [v for pair in pairs for v in pair])]
        path = write_bgen(tmp_path / "p.bgen", blocks, ids=tuple(IDS))
        run = ("gwas", "run", path, root / "t.tsv", "--columns", "a")
        if fits:
            assert command(*run, "--out", tmp_path.parent / f"{tmp_path.name}-fine", "--quiet") == 0
        else:
            message = refused(capsys, tmp_path, *run, "--out", tmp_path / "o")
            assert re.search("p.bgen, variant 'rs0' .*participant '0059' sum to more than 1", message), message


def test_unsorted_and_unknown_chromosomes(root, tmp_path, capsys):
    """Unsorted variants are tested; those without a chromosome are left out, and names nobody knows are told."""
    calls = np.random.default_rng(5).binomial(2, 0.5, (6, N)).astype(np.float32)
    genotypes(tmp_path / "u", variants(["2", "1", "2", "0", "contig7", "chr1"]), calls)
    for verb, more in (("run", ("--hits", "1")), ("gxe", ("--exposure", "age")), ("epistasis", ())):
        out = tmp_path / verb
        base = ("gwas", verb, tmp_path / "u.bed", root / "t.tsv", "--columns", "a", *more)
        assert command(*base, "--out", out, "--quiet") == 0
        told = capsys.readouterr().out
        assert "1 variants without a chromosome (0) left out" in told
        assert "Chromosomes besides 1-22, X, Y and MT, tested like the others: contig7 (1 variants)" in told
        counts = json.loads(out.with_suffix(".json").read_text())["counts"]
        assert counts["variants_unplaced"] == 1
    found = read_results(tmp_path / "run/variants.parquet")
    assert found["chromosome"].tolist() == ["2", "1", "2", "contig7", "1"]
    message = refused(capsys, tmp_path, "genotypes", "prune", tmp_path / "u.bed", "--out", tmp_path / "p.txt")
    assert "Sort the genotypes" in message


def test_only_chromosome_x_leaves_nothing_to_autosomal_commands(root, tmp_path, capsys):
    genotypes(tmp_path / "x", variants(["X"] * 4), np.ones((4, N), dtype=np.float32))
    for verb in ("prune", "kinship", "pca", "grm"):
        message = refused(capsys, tmp_path, "genotypes", verb, tmp_path / "x.bed", "--out", tmp_path / "o.txt")
        assert "No variant is left of 4: 4 not on chromosomes 1 to 22." in message


def test_ids_of_several_variants_are_told(tmp_path, capsys):
    calls = np.random.default_rng(5).binomial(2, 0.5, (4, N)).astype(np.float32)
    calls[1] = calls[0]
    genotypes(tmp_path / "d", variants(["1"] * 4, ["rs1", "rs1", "rs2", "rs3"]), calls)
    calls[1, :30] = np.nan
    genotypes(tmp_path / "m", variants(["1"] * 4, ["rs1", "rs1", "rs2", "rs3"]), calls)
    assert command("genotypes", "prune", tmp_path / "d.bed", "--out", tmp_path / "p.txt", "--quiet") == 0
    assert "1 ids that stay are also ids of variants left out" in capsys.readouterr().out
    qc = ("genotypes", "qc", tmp_path / "m.bed", "--max-sample-missing", "1", "--no-check-sex")
    assert command(*qc, "--max-heterozygosity-sd", "9", "--out", tmp_path / "q", "--quiet") == 0
    assert "keep.variants cannot tell them apart; variants.parquet can" in capsys.readouterr().out


SCANS = {
    "gwas": ("run", ("--hits", "1", "--full")),
    "gxe": ("gxe", ("--exposure", "age", "--hits", "1", "--min-carriers", "5")),
}


def scan(root, name, out, *more):
    verb, own = SCANS[name]
    small = ("--columns", "a,b", "--shard-size", "64", "--executor", "serial", "--quiet")
    return ("gwas", verb, root / "g.bed", root / "t.tsv", *own, *small, "--out", out, *more)


def files_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("name", SCANS)
def test_a_full_disk_leaves_what_can_be_resumed(root, tmp_path, capsys, monkeypatch, name):
    assert command(*scan(root, name, tmp_path / "whole")) == 0
    real, written = np.savez, []

    def full(stream, **arrays):
        written.append(1)
        if len(written) == 3:
            stream.write(b"a part")
            raise OSError(errno.ENOSPC, "No space left on device")
        real(stream, **arrays)

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", full)
        assert command(*scan(root, name, tmp_path / "o")) == 2
    message = capsys.readouterr().err
    assert f"{tmp_path / 'o'}: expected room to write, found none on its disk" in message
    assert "Finished parts are kept: --resume goes on from them." in message
    assert "Traceback" not in message
    assert not (tmp_path / "o").exists()
    assert not (tmp_path / "o.json").exists()
    assert command(*scan(root, name, tmp_path / "o", "--resume")) == 0
    assert files_of(tmp_path / "o") == files_of(tmp_path / "whole")
    assert not list(tmp_path.glob(".*"))


def test_a_full_disk_leaves_no_half_converted_file(root, tmp_path, capsys, monkeypatch):
    def full(self, dosage):
        raise OSError(errno.ENOSPC, "No space left on device")

    for end, writer in (("bed", BedWriter), ("pgen", PgenWriter), ("bgen", BgenWriter)):
        with monkeypatch.context() as patch:
            patch.setattr(writer, "append", full)
            for name in ("append_probabilities", "append_packed"):
                if hasattr(writer, name):
                    patch.setattr(writer, name, lambda *_: full(None, None))
            out = tmp_path / f"o.{end}"
            message = refused(capsys, tmp_path, "genotypes", "convert", root / "g.vcf", "--out", out)
            assert "No space left on device). Free some and run again.\n" in message


@pytest.mark.parametrize(("name", "number"), [("gwas", signal.SIGKILL), ("gxe", signal.SIGINT)])
def test_a_killed_scan_is_resumed_to_the_same_bytes(root, tmp_path, name, number):
    # A shell starts what it runs in the background with interrupts ignored; a person's terminal does not.
    program = f"""
import os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from brainlocus.cli.main import main
from brainlocus.pipeline.steps import {name} as step
real, seen = step._scan, []
def scan(task, path):
    seen.append(1)
    if len(seen) == 3:
        path.write_bytes(b"half")
        os.kill(os.getpid(), {int(number)})
    real(task, path)
step._scan = scan
main({[str(a) for a in scan(root, name, tmp_path / "o")]!r})
"""
    ended = subprocess.run([sys.executable, "-c", program], env=dict(os.environ), capture_output=True, check=False)
    assert ended.returncode == (-number if number == signal.SIGKILL else 130), ended.stderr
    assert not (tmp_path / "o").exists()
    assert command(*scan(root, name, tmp_path / "o", "--resume")) == 0
    assert command(*scan(root, name, tmp_path / "whole")) == 0
    assert files_of(tmp_path / "o") == files_of(tmp_path / "whole")
    assert not list(tmp_path.glob(".*"))


def die_once(task, path):
    """Scan, but end the process the first time that the last part is asked for, as the system does without memory."""
    from brainlocus.pipeline.steps import gwas

    if task.start >= 128:
        os.kill(os.getpid(), signal.SIGKILL)
    gwas._scan(task, path)


def test_a_worker_that_is_killed_is_no_bug(root, tmp_path, capsys, monkeypatch):
    from brainlocus.pipeline.steps import gwas

    more = ("--executor", "processes", "--threads", "1")
    with monkeypatch.context() as patch:
        patch.setattr(gwas, "_scan", die_once)
        assert command(*scan(root, "gwas", tmp_path / "o"), *more) == 2
    message = capsys.readouterr().err
    assert "likely because the machine ran out of memory. Give less --memory or fewer --threads." in message
    assert not (tmp_path / "o").exists()
    assert command(*scan(root, "gwas", tmp_path / "o"), "--resume") == 0
    assert len(read_results(tmp_path / "o/variants.parquet")) == M


def test_a_draw_that_leaves_a_part_empty(root, tmp_path, capsys):
    split = ("cohort", "split", root / "t.tsv", "--fraction", "0.0001", "--out", tmp_path / "s")
    assert "leaves nobody for discovery" in refused(capsys, tmp_path, *split)


def test_wrong_rows_of_copy_number_calls(root, tmp_path, capsys):
    calls, loci = tmp_path / "c.tsv", tmp_path / "l.tsv"
    calls.write_text("ID\tchr\tstart\tend\tcopies\n0001\t1\t300\t200\t1\n")
    loci.write_text("chromosome\tstart\tend\tname\n1\t100\t2000\tL\n")
    builds = ("--build", "GRCh37", "--loci-build", "GRCh37")
    cnv = ("gwas", "cnv", calls, root / "t.tsv", "--loci", loci, *builds, "--out", tmp_path / "o")
    assert "c.tsv: Row 1 (0001) starts at 300 and ends at 200" in refused(capsys, tmp_path, *cnv)


WRONG = {
    "--regions 1:9-2": "--regions: expected a region whose end is not before its start, found '1:9-2'.\n",
    "--regions 1:x": "or a BED file, found '1:x'.\n",
    "--where position>": "--where: expected an expression .*, found invalid syntax.\n",
    "--where pos>3": "there is no column 'pos'",
    "--where maf>0.1": "It comes from genotypes",
    "--memory 1MB": "needs 17 MiB, 1 MiB are given. Raise --memory",
    "--memory lots": "--memory: expected a size such as 8GiB",
    "--method logistik": "--method: ",
    "--correction spa": "--correction: only with --method logistic or --ridge-binary, found --method linear",
    "--method logistic --columns a": "t.tsv: Trait 'a' is not binary: expected 0 .control. and 1 .case., or 1 and 2",
    "--bgen-sample g.sample": "--bgen-sample: expected genotypes ending in .bgen, found g.bed",
    "--executor slurm": "--executor: expected one of serial, threads, processes",
    "--columns c": "--columns: no column matches 'c'",
}


@pytest.mark.parametrize("options", WRONG)
def test_wrong_options(root, tmp_path, capsys, options):
    message = refused(
        capsys, tmp_path, "gwas", "run", root / "g.bed", root / "t.tsv", *options.split(), "--out", tmp_path / "o"
    )
    assert re.search(WRONG[options], message), message
