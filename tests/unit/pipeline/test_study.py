"""study.toml: validated, explained, planned."""

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner

from brainlocus.cli.main import cli
from brainlocus.core import Column, FormatError, PhenotypeTable, SampleIndex, SchemaError
from brainlocus.io import read_table, write_table
from brainlocus.pipeline.run_study import plan_study
from brainlocus.pipeline.study import load_study, study_schema


@pytest.fixture
def folder(tmp_path):
    people = SampleIndex.of([f"p{k}" for k in range(60)])
    rng = np.random.default_rng(0)
    columns = (
        Column("age", rng.uniform(20, 80, 60)),
        Column("sex", rng.integers(0, 2, 60).astype(float), "binary"),
        Column("site", np.array(["a", "b"] * 30), "categorical"),
    )
    write_table(PhenotypeTable(people, columns), tmp_path / "participants.tsv")
    traits = tuple(Column(f"t{k}", rng.normal(size=60)) for k in range(3))
    write_table(PhenotypeTable(people, traits), tmp_path / "traits.tsv")
    return tmp_path


def study(folder, text):
    path = folder / "study.toml"
    path.write_text(text)
    return path


INPUTS = '[inputs]\ntraits = "traits.tsv"\nparticipants = "participants.tsv"\n'


def keys(folder, text):
    return [p.key for p in plan_study(load_study(study(folder, text)), folder / "out")]


def test_the_inputs_decide_the_steps(folder):
    assert keys(folder, '[inputs]\ntraits = "traits.tsv"\n') == ["traits", "prepare"]
    assert keys(folder, INPUTS) == ["traits", "harmonise", "prepare"]
    assert keys(folder, INPUTS + "[harmonise]\nenabled = false\n") == ["traits", "prepare"]
    assert keys(folder, INPUTS + '[harmonise]\nbatch = "scanner"\n') == ["traits", "prepare"]


def arrays_of_images(folder):
    """Write the same images of 60 people as a NumPy array and as a 4-D NIfTI file, and a mask; return them."""
    values = np.random.default_rng(0).uniform(0.1, 1, (60, 4, 4, 3)).astype(np.float32)
    nib.Nifti1Image(np.ones((4, 4, 3), dtype=np.uint8), np.eye(4)).to_filename(folder / "mask.nii.gz")
    np.save(folder / "maps.npy", values)
    nib.Nifti1Image(np.moveaxis(values, 0, 3), np.eye(4)).to_filename(folder / "maps.nii")
    return values


def study_of_an_array(folder, name):
    text = f'[inputs]\nimages = "{name}"\nimage_ids = "participants.tsv"\nmask = "mask.nii.gz"\n'
    return study(folder, text + "[atlas]\nscales = [3]\n[prepare]\nenabled = false\n")


@pytest.mark.parametrize(("name", "needed"), [("maps.npy", True), ("maps.nii", False)])
def test_arrays_that_do_not_say_where_they_lie_get_the_mask_at_both_steps(folder, name, needed):
    arrays_of_images(folder)
    planned = {p.key: p for p in plan_study(load_study(study_of_an_array(folder, name)), folder / "out")}
    assert planned["atlas"].config.mask == folder / "mask.nii.gz"
    assert planned["idp"].config.mask == (folder / "mask.nii.gz" if needed else None)


def test_images_in_one_array_go_through_the_study(folder):
    values = arrays_of_images(folder)
    path = str(study_of_an_array(folder, "maps.npy"))
    done = CliRunner().invoke(cli, ["run", path, "--out", str(folder / "out"), "--quiet", "--threads", "1"])
    assert done.exit_code in (0, 3), done.output  # 3: a fit of noise need not converge
    table = read_table(folder / "out" / "idps.parquet")
    assert list(table.samples.ids) == [f"p{k}" for k in range(60)]
    sums = np.sum([column.values for column in table.columns], axis=0)
    np.testing.assert_allclose(sums, values.sum(axis=(1, 2, 3)), rtol=1e-5)


def test_age_and_sex_are_adjusted_for_by_default(folder):
    planned = {p.key: p for p in plan_study(load_study(study(folder, INPUTS)), folder / "out")}
    assert planned["prepare"].config.confounds == "age + sex + I(age**2)"
    assert planned["harmonise"].config.preserve == "age + sex"
    assert planned["prepare"].reads[0] == folder / "out" / "harmonised.parquet"


def test_confounds_with_roles_take_the_place_of_the_default_formula(folder):
    (folder / "roles.toml").write_text('age = "age"\nsite = "site"\n')
    text = INPUTS + 'confound_roles = "roles.toml"\n[prepare]\nconfound_set = "small"\n'
    path = study(folder, text)
    planned = {p.key: p for p in plan_study(load_study(path), folder / "out")}
    config = planned["prepare"].config
    assert (config.confounds, config.confound_set) == ("", "small")
    assert config.confound_roles == folder / "roles.toml"
    done = CliRunner().invoke(cli, ["run", str(path), "--out", str(folder / "out"), "--quiet", "--threads", "1"])
    assert done.exit_code == 0, done.output
    assert (folder / "out" / "reports" / "prepare" / "groups.png").exists()


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (
            INPUTS + '[prepare]\noutlierz = "mad:6"\n',
            SchemaError,
            r"prepare\.outlierz: unknown key\. Did you mean 'outliers'",
        ),
        (INPUTS + "[preppare]\n", SchemaError, r"preppare: unknown key\. Did you mean 'prepare'"),
        ('[inputs]\ntrait = "x"\n', SchemaError, r"inputs\.trait: unknown key\. Did you mean 'traits'"),
        (INPUTS + "[prepare]\nmin_people = 'many'\n", SchemaError, r"prepare\.min_people: .*; found 'many'"),
        ("", SchemaError, "inputs: required"),
        ("[inputs\n", FormatError, "expected TOML: .*line 1"),
        (INPUTS.replace("traits.tsv", "dataset:nope/x"), SchemaError, "no dataset 'nope'"),
    ],
)
def test_mistakes_are_explained(folder, text, error, message):
    with pytest.raises(error, match=message):
        load_study(study(folder, text))


def test_asking_for_the_impossible(folder):
    with pytest.raises(SchemaError, match=r"\[atlas\] enabled = true, but it needs \[inputs\] images"):
        keys(folder, INPUTS + "[atlas]\nenabled = true\n")
    with pytest.raises(SchemaError, match="nothing to do"):
        keys(folder, '[inputs]\nparticipants = "participants.tsv"\n')


def test_the_schema_describes_every_key():
    schema = study_schema()
    assert schema["properties"]["inputs"]
    for name, model in schema["$defs"].items():
        for key, field in model["properties"].items():
            assert field.get("description"), f"{name}.{key}"


def test_command_line_messages_and_exit_codes(folder):
    """What a person sees: one message, exit code 2, nothing written."""
    from brainlocus.cli.main import main

    bad, good = folder / "bad.toml", study(folder, INPUTS)
    bad.write_text(INPUTS + "[preppare]\n")
    for arguments in (
        ["run", str(bad), "--out", str(folder / "out")],
        ["run", str(folder / "absent.toml"), "--out", str(folder / "out")],
        ["run", str(good), "--out", str(folder / "out"), "--only", "gwaz"],
        ["run"],
        ["cohort", "join", str(folder / "absent.tsv"), "--out", str(folder / "x.tsv")],
        ["cohort", "join", str(folder / "traits.tsv"), "--out", str(folder / "x.tsv"), "--memory", "lots"],
        ["cohort", "join", str(folder / "traits.tsv"), "--out", str(folder / "x.tsv"), "--executor", "cloud"],
        ["cohort", "split", str(folder / "participants.tsv"), "--by", "age", "--out", str(folder / "parts")],
        ["cohort", "split", str(folder / "participants.tsv"), "--by", "cite", "--out", str(folder / "parts")],
    ):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2, arguments
    assert {p.name for p in folder.iterdir()} == {"participants.tsv", "traits.tsv", "study.toml", "bad.toml"}


def test_dry_run_and_run(folder):
    path = study(folder, INPUTS)
    shown = CliRunner().invoke(cli, ["run", str(path), "--out", str(folder / "out"), "--dry-run"])
    assert shown.exit_code == 0
    assert "cohort harmonise" in shown.output
    assert not (folder / "out").exists()
    done = CliRunner().invoke(cli, ["run", str(path), "--out", str(folder / "out"), "--quiet", "--threads", "1"])
    assert done.exit_code == 0, done.output
    again = CliRunner().invoke(cli, ["run", str(path), "--out", str(folder / "out"), "--quiet", "--resume"])
    assert again.output.count("unchanged") == 3


def test_resume_runs_again_what_follows_a_change(folder):
    arguments = ["--out", str(folder / "out"), "--quiet", "--resume", "--threads", "1"]
    CliRunner().invoke(cli, ["run", str(study(folder, INPUTS)), *arguments])
    changed = study(folder, INPUTS + '[harmonise]\npreserve = "age"\n')
    again = CliRunner().invoke(cli, ["run", str(changed), *arguments])
    assert again.exit_code == 0, again.output
    assert again.output.count("unchanged") == 1
