"""Products through the array API against those of the processor; strict about what the standard has."""

import array_api_strict
import numpy as np
import pytest
from tests.contracts.genotype_contract import example

from brainlocus.core import MissingExtraError, select_genotypes
from brainlocus.genetics.gwas import ScanSettings, linear_scan, prepare_linear
from brainlocus.genetics.gwas.calls import calls_buffer, read_calls
from brainlocus.genetics.gwas.linear_scan import LinearMethod
from brainlocus.genetics.gwas.products import DeviceProducts, HostProducts, device_products
from brainlocus.genetics.gwas.tallies import empty_tallies
from brainlocus.io import BedWriter, open_bed


@pytest.fixture
def study(tmp_path):
    samples, variants, sex, calls = example(n=203, seed=4)
    calls[calls == 2] = np.random.default_rng(0).integers(0, 3, (calls == 2).sum())
    with BedWriter(tmp_path / "g", samples, variants, sex) as out:
        out.append(calls)
    rng = np.random.default_rng(1)
    traits = rng.normal(size=(203, 5)) + np.nan_to_num(calls[3])[:, None]
    traits[rng.random(203) < 0.1, 2] = np.nan
    traits[rng.random(203) < 0.7, 3] = np.nan
    return open_bed(tmp_path / "g.bed"), prepare_linear(traits, rng.normal(size=(203, 2)))


@pytest.mark.parametrize("selected", [False, True])
def test_decoded_on_the_device_or_here_is_the_same(study, selected):
    source, design = study
    if selected:
        source = select_genotypes(source, variants=np.array([9, 3, 4, 20]))
    device = DeviceProducts(design, array_api_strict)
    host = HostProducts(design)
    m = len(source.variants)
    decoded, packed = read_calls(source, 0, m, calls_buffer(m, 203)), read_calls(source, 0, m, None)
    assert packed.counts.shape == (m, 0)
    np.testing.assert_array_equal(packed.missing_people, decoded.missing_people)
    np.testing.assert_allclose(device.of_block(packed), host.of_block(decoded), rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(device.of_block(decoded), host.of_block(decoded), rtol=2e-5, atol=2e-5)
    for group in design.groups[1:]:
        basis = None if group.transform is None else group.basis
        sums, product = host.of_people(decoded, group.people, basis)
        for block in (packed, decoded):
            device_sums, device_product = device.of_people(block, group.people, basis)
            np.testing.assert_allclose(device_sums, sums, rtol=1e-9, atol=1e-9)
            assert (product is None) == (device_product is None)
            if product is not None:
                np.testing.assert_allclose(device_product, product, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("missing", ["auto", "exact"])
def test_a_scan_on_a_device_has_the_results_of_the_processor(study, monkeypatch, missing):
    source, design = study
    there = DeviceProducts(design, array_api_strict)
    monkeypatch.setattr(linear_scan, "_products", lambda d, device: there if device == "cuda" else HostProducts(d))
    results = {}
    for device in ("cpu", "cuda"):
        buffer = calls_buffer(23, 203) if device == "cpu" else None
        settings = ScanSettings(hits=0.01, min_mac=1.0, full=True, device=device, missing=missing)
        tallies = empty_tallies(5)
        results[device] = LinearMethod(design).scan_block(read_calls(source, 0, 23, buffer), settings, tallies)
    cpu, cuda = results["cpu"], results["cuda"]
    np.testing.assert_array_equal(cpu.hit_variant, cuda.hit_variant)
    assert cpu.hit_variant.size > 5
    for name, values in cpu.hit_values.items():
        np.testing.assert_allclose(cuda.hit_values[name], values, rtol=1e-9, err_msg=name)  # hits are float64 anyway
    # methods/gwas.md 2.4: 2e-4 absolute elsewhere.
    np.testing.assert_allclose(cuda.full_traits["t"], cpu.full_traits["t"], atol=2e-4)


def test_devices_that_are_not_there_are_named(study):
    _, design = study
    with pytest.raises(ValueError, match="expected cpu or cuda, found 'tpu'"):
        device_products(design, "tpu")
    with pytest.raises((MissingExtraError, ValueError), match=r"pip install 'brainlocus\[gpu\]'|no CUDA device"):
        device_products(design, "cuda")
