"""What every executor must do; a new one inherits `ExecutorContract` and gives itself as a fixture."""

import os
import time

import pytest


def square(x):
    return x * x


def slow_first(x):
    time.sleep(0.05 if x == 0 else 0.0)
    return x


def fail_at_three(x):
    if x == 3:
        raise ValueError("three")
    return x


def die_once(work):
    """Kill this worker the first time it sees the item, so that the task has to be tried again."""
    item, flag = work
    if item == 2 and not flag.exists():
        flag.touch()
        os._exit(9)
    return item


class ExecutorContract:
    @pytest.fixture
    def executor(self):
        raise NotImplementedError

    def test_results_come_in_order(self, executor):
        assert list(executor.map(slow_first, range(8))) == list(range(8))

    def test_nothing_in_nothing_out(self, executor):
        assert list(executor.map(square, [])) == []

    def test_input_is_taken_up_only_as_fast_as_it_is_worked_on(self, executor):
        taken = 0

        def items():
            nonlocal taken
            for k in range(100):
                taken += 1
                yield k

        results = executor.map(square, items())
        assert next(iter(results)) == 0
        assert taken <= 2 * executor.workers + 2
        assert list(results) == [k * k for k in range(1, 100)]

    def test_an_error_reaches_the_caller(self, executor):
        results = executor.map(fail_at_three, range(10))
        with pytest.raises(ValueError, match="three"):
            list(results)
