"""Categories of phenotypes: by name, and UK Biobank's fields as FUNPACK lists them."""

import pytest

from brainlocus.core import FormatError, SchemaError
from brainlocus.io import field_of, read_categories
from tests.real_data import real_data


def test_names(tmp_path):
    path = tmp_path / "categories.tsv"
    path.write_text("phenotype\tcategory\ngrip\tbody\n")
    found = read_categories(path)
    assert [found.of(name) for name in ("grip", "age")] == ["body", ""]


def test_fields_and_their_ranges(tmp_path):
    path = tmp_path / "categories.tsv"
    path.write_text("ID\tCategory\tVariables\n1\tage, sex\t31,52:54\n2\tfood\t100:10:130, 7\n")
    found = read_categories(path)
    names = ("31", "f.53.0.0", "54-2.0", "x55_0_0", "p110_i2_a0", "115", "130-0.0", "7", "grip")
    assert [found.of(name) for name in names] == ["age, sex"] * 3 + ["", "food", "", "food", "food", ""]


def test_a_field_is_not_read_into_any_number():
    for name in ("height31", "2-back", "C32_5", "31a", "1e5"):
        assert field_of(name) is None


@pytest.mark.parametrize(("variables", "message"), [("5:3", "rises, found '5:3'"), ("x", "a:b or a:step:b, found 'x'")])
def test_bad_ranges_are_named_with_their_line(tmp_path, variables, message):
    path = tmp_path / "categories.tsv"
    path.write_text(f"Category\tVariables\nfood\t1\nother\t{variables}\n")
    with pytest.raises(FormatError, match=f"line 3: .*{message}"):
        read_categories(path)


def test_other_columns(tmp_path):
    path = tmp_path / "categories.tsv"
    path.write_text("name\tgroup\na\tb\n")
    with pytest.raises(SchemaError, match="found name, group"):
        read_categories(path)


def test_published_map():
    found = read_categories(real_data("cohort/phewas/funpack_categories.tsv"))
    assert found.of("f.31.0.0") == "ID, age, sex, brain MRI protocol Phase"
    assert found.of("2724-0.0") == "lifestyle and environment - general"
    assert found.of("2725-0.0") == ""
