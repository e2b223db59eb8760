"""Regions of quantitative maps against loops over voxels, and tables of a cohort with known regressions."""

import numpy as np
import pytest

from brainlocus.core import AlignmentError, FormatError, Mask, Parcellation, SchemaError, Volume, concat_results
from brainlocus.images.idp import (
    LESIONS,
    NORMAL_APPEARING,
    REGIONS,
    RegionSettings,
    add_regions,
    assemble_idps,
    canonical_name,
    choroid_plexus,
    erode_labels,
    lateral_ventricles,
    lesion_difference,
    measure_regions,
    region_labels,
    residual_on,
    subject_idps,
    white_matter,
)

THICK = np.diag([0.8, 0.8, 3.0, 1.0])
SHAPE = (14, 15, 12)


def naive_erosion(labels, axis):
    """Keep a voxel when all nine of its in-plane square are its label, loop by loop."""
    result = np.zeros_like(labels)
    first, second = (a for a in range(3) if a != axis)
    for voxel in np.ndindex(labels.shape):
        same = True
        for u in (-1, 0, 1):
            for v in (-1, 0, 1):
                other = list(voxel)
                other[first] += u
                other[second] += v
                outside = any(o < 0 or o >= n for o, n in zip(other, labels.shape, strict=True))
                same &= not outside and labels[tuple(other)] == labels[voxel]
        result[voxel] = labels[voxel] if same else 0
    return result


def blocks():
    labels = np.zeros(SHAPE, dtype=np.int16)
    labels[1:7, 1:8, 0:6] = 12
    labels[7:13, 1:8, 0:6] = 51
    labels[2:9, 9:15, 3:9] = 11
    labels[12, 14, 11] = 50
    return Parcellation(labels, THICK)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_erosion_is_that_of_loops_across_the_thickest_axis(axis):
    size = [0.8, 0.8, 0.8]
    size[axis] = 3.0
    parcels = Parcellation(blocks().labels, np.diag([*size, 1.0]))
    np.testing.assert_array_equal(erode_labels(parcels).labels, naive_erosion(parcels.labels, axis))


def test_equal_edges_are_eroded_in_the_axial_plane():
    axes = np.array([[0, 0, 1.0, 0], [1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 0, 1]])  # the second axis is superior
    parcels = Parcellation(blocks().labels, axes)
    np.testing.assert_array_equal(erode_labels(parcels).labels, naive_erosion(parcels.labels, 1))


def test_a_label_may_stay_whole():
    eroded = erode_labels(blocks(), keep=[11]).labels
    np.testing.assert_array_equal(eroded == 11, blocks().labels == 11)
    assert (eroded == 12).sum() < (blocks().labels == 12).sum()


def test_measures_are_those_of_loops():
    rng = np.random.default_rng(0)
    parcels = blocks()
    data = rng.normal(0.05, 0.04, SHAPE).astype(np.float32)
    data[3, 3, 2] = np.nan
    inside = Mask(rng.uniform(size=SHAPE) < 0.8, THICK)
    found = measure_regions(Volume(data, THICK, "susceptibility", "ppm"), parcels, inside)
    assert found.regions == ("left_caudate", "right_caudate", "left_putamen", "right_putamen")
    assert found.unit == "ppb"
    eroded = naive_erosion(parcels.labels, 2)
    for region, label in (("left_caudate", 11), ("left_putamen", 12), ("right_putamen", 51)):
        k = found.regions.index(region)
        values = [
            1000.0 * float(data[v])
            for v in np.ndindex(SHAPE)
            if eroded[v] == label and inside.data[v] and np.isfinite(data[v])
        ]
        assert found.status[k] == "ok"
        assert found.n_voxels[k] == len(values)
        assert found.median[k] == pytest.approx(np.median(values), rel=1e-12)
        assert found.median_unfiltered[k] == found.median[k]
        assert found.mean[k] == pytest.approx(np.mean(values), rel=1e-12)
        assert found.standard_deviation[k] == pytest.approx(np.std(values, ddof=1), rel=1e-12)
        assert found.mad[k] == pytest.approx(np.median(np.abs(np.array(values) - np.median(values))), rel=1e-12)
        assert found.inside_fraction[k] == pytest.approx(len(values) / (eroded == label).sum())
        assert found.volume_mm3[k] == pytest.approx((parcels.labels == label).sum() * 0.8 * 0.8 * 3)


def test_regions_without_a_value_say_why():
    parcels = blocks()
    inside = np.ones(SHAPE, dtype=bool)
    inside[7:11] = False
    found = measure_regions(Volume(np.ones(SHAPE), THICK, "", "s"), parcels, Mask(inside, THICK))
    why = dict(zip(found.regions, found.status, strict=True))
    assert found.unit == "ms"
    assert why["right_caudate"] == "region vanished under erosion"
    assert why["right_putamen"] == "25% of the region inside the mask, 50% needed"
    k = found.regions.index("right_putamen")
    assert np.isnan([found.median[k], found.mean[k], found.mad[k]]).all()
    assert found.volume_mm3[k] > 0
    nothing = Mask(np.zeros(SHAPE, dtype=bool), THICK)
    assert "ok" not in measure_regions(Volume(np.ones(SHAPE), THICK, "", "s"), parcels, nothing).status
    strict = RegionSettings(min_voxels=1000)
    few = measure_regions(Volume(np.ones(SHAPE), THICK, "", "s"), parcels, Mask(inside, THICK), settings=strict)
    assert few.status[0].endswith("voxels, 1000 needed")
    absent = measure_regions(
        Volume(np.ones(SHAPE), THICK, "", "s"), parcels, Mask(inside, THICK), regions={"left_thalamus": 10}
    )
    assert absent.status == ("region has no voxel",)


def nigra():
    labels = np.zeros(SHAPE, dtype=np.int16)
    labels[1:6, 1:8, :] = 1
    labels[8:13, 1:8, :] = 2
    return Parcellation(labels, THICK, {1: "Left Substantia Nigra", 2: "R_SN"})


def test_substantia_nigra_keeps_susceptibilities_from_zero():
    data = np.random.default_rng(1).normal(0.02, 0.05, SHAPE).astype(np.float32)
    inside = Mask(np.ones(SHAPE, dtype=bool), THICK)
    chi = Volume(data, THICK, "susceptibility", "ppm")
    found = measure_regions(chi, nigra(), inside, signed=True)
    core = naive_erosion(nigra().labels, 2) == 1
    values = 1000.0 * data[core].astype(np.float64)
    k = found.regions.index("left_substantia_nigra")
    assert found.median[k] == np.median(values[values >= 0])
    assert found.median_unfiltered[k] == np.median(values)
    assert found.median[k] > found.median_unfiltered[k]
    assert found.n_voxels[k] == (values >= 0).sum()
    assert found.inside_fraction[k] == 1.0
    plain = measure_regions(Volume(data, THICK, "t2star", "s"), nigra(), inside)
    assert plain.median[k] == np.median(values)
    whole = measure_regions(chi, nigra(), inside, settings=RegionSettings(uneroded=("substantia_nigra",)))
    assert whole.n_voxels[k] == (nigra().labels == 1).sum()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Left-Putamen", "left_putamen"),
        ("putamen_right", "right_putamen"),
        ("L_Accu", "left_accumbens"),
        ("Right-Accumbens-area", "right_accumbens"),
        ("Left-Thalamus-Proper", "left_thalamus"),
        ("Left-Thalamus", "left_thalamus"),
        ("lh substantia nigra", "left_substantia_nigra"),
        ("SN-R", "right_substantia_nigra"),
        ("Globus Pallidus Left", "left_pallidum"),
        ("CaudateNucleusR", "right_caudate"),
        ("Left-Cerebral-White-Matter", ""),
        ("ctx-lh-cuneus", ""),
        ("Left hippocampus subiculum", ""),
        ("Putamen", ""),
        ("Left Right Putamen", ""),
        ("", ""),
    ],
)
def test_names(name, expected):
    assert canonical_name(name) == expected


def test_freesurfer_and_first_numbers():
    labels = np.zeros((4, 4, 4), dtype=np.int16)
    numbers = (10, 11, 12, 13, 17, 18, 26, 49, 50, 51, 52, 53, 54, 58)
    labels.ravel()[: len(numbers)] = numbers
    found = region_labels(Parcellation(labels, np.eye(4)))
    assert set(found) == {r for r in REGIONS if "nigra" not in r}
    assert found["left_accumbens"] == 26
    assert found["right_thalamus"] == 49
    assert found["right_hippocampus"] == 53
    labels.ravel()[20:24] = (4, 43, 31, 63)
    aseg = Parcellation(labels, np.eye(4))
    assert lateral_ventricles(aseg).data.sum() == 2
    assert choroid_plexus(aseg).data.sum() == 2
    named = Parcellation(labels, np.eye(4), {4: "Left-Lateral-Ventricle", 5: "Left-Inf-Lat-Vent", 31: "Choroid plexus"})
    assert lateral_ventricles(named).data.sum() == 1
    assert choroid_plexus(named).data.sum() == 1


def test_other_parcellations_are_refused():
    counted = Parcellation(np.arange(64, dtype=np.int16).reshape(4, 4, 4), np.eye(4))
    with pytest.raises(FormatError, match="none of the subcortical regions"):
        region_labels(counted)
    twice = Parcellation(np.ones((2, 2, 2), dtype=np.int8), np.eye(4), {1: "Left-Putamen", 2: "L_Puta"})
    with pytest.raises(FormatError, match="Labels 1 and 2 are both called left_putamen"):
        region_labels(twice)


def test_substantia_nigra_of_an_atlas_is_added():
    base, extra = blocks(), nigra()
    both = add_regions(base, extra)
    found = region_labels(both)
    assert set(found) == {*region_labels(base), "left_substantia_nigra", "right_substantia_nigra"}
    np.testing.assert_array_equal(both.labels == found["left_substantia_nigra"], extra.labels == 1)
    with pytest.raises(FormatError, match="Both label images have left_substantia_nigra"):
        add_regions(both, extra)
    with pytest.raises(AlignmentError, match="added label image"):
        add_regions(base, Parcellation(extra.labels[:5], THICK, extra.names))


def test_tissues_known_by_number_stay_known_when_regions_are_added():
    labels = np.zeros(SHAPE, dtype=np.int16)
    for k, label in enumerate((2, 4, 12, 31, 41, 43, 51, 63)):
        labels[k] = label
    base = Parcellation(labels, THICK)
    both = add_regions(base, nigra())
    for tissue in (lateral_ventricles, choroid_plexus, white_matter):
        expected = tissue(base).data & (nigra().labels == 0)
        assert expected.any()
        np.testing.assert_array_equal(tissue(both).data, expected)
    # Other numberings have no tissue to keep.
    counted = Parcellation(np.where(labels == 2, 2, 1).astype(np.int16), THICK, {})
    assert not white_matter(add_regions(counted, nigra())).data.any()


def test_grids_and_units_are_checked():
    inside = Mask(np.ones(SHAPE, dtype=bool), THICK)
    chi = Volume(np.zeros(SHAPE), THICK, "", "ppm")
    with pytest.raises(AlignmentError, match="The mask"):
        measure_regions(chi, blocks(), Mask(inside.data[:3], THICK))
    with pytest.raises(AlignmentError, match="The label image"):
        measure_regions(chi, Parcellation(blocks().labels, np.eye(4)), inside)
    with pytest.raises(ValueError, match="got one in 'Hz'"):
        measure_regions(Volume(np.zeros(SHAPE), THICK, "", "Hz"), blocks(), inside)


def scan(k, participant, session="", *, shift=0.0, volume=0):
    """Return the rows of a scan whose putamen is larger by `volume` planes."""
    rng = np.random.default_rng(k)
    parcels = blocks()
    parcels.labels[1:7, 1:8, 6 : 6 + volume] = 12
    chi = rng.normal(0.05 + shift, 0.01, SHAPE).astype(np.float32)
    lesion, tissue = np.zeros((2, *SHAPE), dtype=bool)
    lesion[10:13, 10:13, 0 : 3 + volume] = True
    tissue[9:14, 9:15] = True
    maps = {
        "QSM": Volume(chi, THICK, "susceptibility", "ppm"),
        "T2star": Volume(np.abs(chi), THICK, "t2star", "s"),
        "fieldgradient": Volume(np.full(SHAPE, 0.1 * k), THICK, "r2star", "1/s"),
    }
    return subject_idps(
        maps, parcels, Mask(np.ones(SHAPE, dtype=bool), THICK), participant_id=participant, session_id=session,
        lesions=Mask(lesion, THICK), white_matter=Mask(tissue, THICK),
    ), (chi, lesion, tissue)  # fmt: skip


def test_a_scan_has_a_row_for_every_map_and_region():
    rows, (chi, lesion, tissue) = scan(1, "sub-1")
    assert len(rows) == 3 * (4 + 2)
    assert set(rows["region"]) == {
        "left_caudate", "right_caudate", "left_putamen", "right_putamen", LESIONS, NORMAL_APPEARING,
    }  # fmt: skip
    assert dict(zip(rows["measure"].tolist(), rows["unit"].tolist(), strict=True)) == {
        "QSM": "ppb", "T2star": "ms", "fieldgradient": "1/s",
    }  # fmt: skip
    wide = assemble_idps(rows).phenotypes
    values = 1000.0 * chi.astype(np.float64)
    expected = values[lesion].mean() - np.median(values[tissue & ~lesion])
    assert wide.column("QSM_wmh_difference").values[0] == pytest.approx(expected, rel=1e-9)


def test_lesion_difference_needs_both():
    labels = np.zeros(SHAPE, dtype=np.int8)
    labels[2:8] = 1
    labels[8:] = 2
    tissue = Parcellation(labels, THICK)
    data = np.where(labels == 1, 0.03, -0.02)
    inside = Mask(np.ones(SHAPE, dtype=bool), THICK)
    known = {LESIONS: 1, NORMAL_APPEARING: 2}
    found = measure_regions(Volume(data, THICK, "", "ppm"), tissue, inside, regions=known)
    assert lesion_difference(found) == pytest.approx(50.0)
    assert np.isnan(lesion_difference(measure_regions(Volume(data, THICK, "", "ppm"), blocks(), inside)))
    none = Parcellation(np.where(labels == 2, 2, 0).astype(np.int8), THICK)
    found = measure_regions(Volume(data, THICK, "", "ppm"), none, inside, regions=known)
    assert np.isnan(lesion_difference(found))
    assert found.status == ("region has no voxel", "ok")


def test_a_cohort_is_one_row_a_person():
    people = [scan(k, f"sub-{k}", shift=0.002 * k, volume=k % 5)[0] for k in range(9)]
    cohort = assemble_idps(concat_results(people))
    wide = cohort.phenotypes
    assert wide.samples.ids.tolist() == [f"sub-{k}" for k in range(9)]
    assert wide.names[0] == "QSM_left_caudate_median"
    assert "session_id" not in wide.names
    assert wide.column("T2star_left_putamen_median").unit == "ms"
    assert np.isnan(wide.column("QSM_right_caudate_median").values).all()
    confounds = cohort.confounds
    np.testing.assert_allclose(confounds.column("fieldgradient_left_putamen_median").values, 0.1 * np.arange(9))
    volume = confounds.column("left_putamen_volume").values
    plain = wide.column("QSM_left_putamen_median").values
    adjusted = cohort.adjusted.column("QSM_left_putamen_median_volumeadjusted").values
    design = np.column_stack([np.ones(9), volume])
    expected = plain - design @ np.linalg.lstsq(design, plain, rcond=None)[0] + plain.mean()
    np.testing.assert_allclose(adjusted, expected, rtol=1e-9)
    assert "T2star_left_putamen_median_gradientadjusted" in cohort.adjusted.names
    assert "QSM_left_putamen_median_gradientadjusted" not in cohort.adjusted.names
    assert "QSM_wmh_difference_volumeadjusted" in cohort.adjusted.names


def test_order_of_scans_changes_nothing():
    people = [scan(k, f"sub-{k}")[0] for k in range(5)]
    here, there = assemble_idps(concat_results(people)), assemble_idps(concat_results(people[::-1]))
    np.testing.assert_array_equal(here.phenotypes.matrix(), there.phenotypes.matrix())
    assert here.phenotypes.samples == there.phenotypes.samples


def test_sessions_and_missing_measures():
    rows = [scan(k, f"sub-{k}", s)[0] for k in (1, 2) for s in ("ses-1", "ses-2")]
    lone = scan(3, "sub-3", "ses-2")[0]
    lone = lone.take(lone["measure"] == "QSM")
    cohort = assemble_idps(concat_results([*rows, lone]))
    assert cohort.phenotypes.samples.ids.tolist() == ["sub-1", "sub-2", "sub-3"]
    assert cohort.phenotypes.column("session_id").values.tolist() == ["ses-1", "ses-1", "ses-2"]
    assert cohort.every_scan.samples.ids.tolist() == [
        "sub-1_ses-1", "sub-1_ses-2", "sub-2_ses-1", "sub-2_ses-2", "sub-3",
    ]  # fmt: skip
    assert np.isnan(cohort.phenotypes.column("T2star_left_putamen_median").values[2])
    assert np.isfinite(cohort.phenotypes.column("QSM_left_putamen_median").values).all()


def test_sessions_are_counted_by_number_not_by_text():
    rows = [scan(1, "sub-1", session)[0] for session in ("ses-10", "ses-2")]
    cohort = assemble_idps(concat_results(rows))
    assert cohort.phenotypes.column("session_id").values.tolist() == ["ses-2"]
    assert cohort.session_id == ("ses-2", "ses-10")
    first = assemble_idps(rows[1])
    name = "QSM_left_putamen_median"
    assert cohort.phenotypes.column(name).values[0] == first.phenotypes.column(name).values[0]


def test_bad_rows():
    rows = scan(1, "sub-1")[0]
    with pytest.raises(SchemaError, match="QSM of left_caudate twice"):
        assemble_idps(concat_results([rows, rows]))
    with pytest.raises(SchemaError, match="no rows of regions"):
        assemble_idps(rows.take(np.zeros(len(rows), dtype=bool)))


def test_residuals_keep_missing_people_missing():
    values, confound = np.arange(8.0), np.random.default_rng(0).normal(size=8)
    values[2], confound[5] = np.nan, np.nan
    found = residual_on(values, confound)
    assert np.isnan(found).tolist() == [k in (2, 5) for k in range(8)]
    both = ~np.isnan(found)
    assert abs(np.corrcoef(found[both], confound[both])[0, 1]) < 1e-12
    assert found[both].mean() == pytest.approx(values[both].mean())
    assert np.isnan(residual_on(values[:4], confound[:4])).all()
    np.testing.assert_allclose(residual_on(np.arange(6.0), np.ones(6)), np.arange(6.0))
