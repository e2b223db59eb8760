"""Serial, threads and processes keep the executor contract and give the same results."""

import numpy as np
import pytest

from brainlocus.pipeline import ProcessExecutor, SerialExecutor, ThreadExecutor, make_executor
from tests.contracts.executor_contract import ExecutorContract, die_once


def product(seed):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(40, 60)) @ rng.normal(size=(60, 40))


class TestSerial(ExecutorContract):
    @pytest.fixture
    def executor(self):
        return SerialExecutor()


class TestThreads(ExecutorContract):
    @pytest.fixture
    def executor(self):
        return ThreadExecutor(2)


class TestProcesses(ExecutorContract):
    @pytest.fixture
    def executor(self):
        return ProcessExecutor(2)

    def test_a_dead_worker_is_replaced(self, executor, tmp_path):
        items = [(k, tmp_path / "died") for k in range(6)]
        assert list(executor.map(die_once, items)) == list(range(6))
        assert (tmp_path / "died").exists()


def test_same_bits_on_every_executor():
    results = [
        list(make_executor(name, threads=2).map(product, range(4))) for name in ("serial", "threads", "processes")
    ]
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_unknown_executor():
    with pytest.raises(ValueError, match="expected one of serial, threads, processes, found 'slurm'"):
        make_executor("slurm", threads=2)
