"""The examples in docstrings are run: they are the first thing that a newcomer copies."""

import doctest
import importlib
import pkgutil

import pytest

import brainlocus

MODULES = [m.name for m in pkgutil.walk_packages(brainlocus.__path__, "brainlocus.") if "._web" not in m.name]


def with_examples(name):
    module = importlib.import_module(name)
    tests = doctest.DocTestFinder(exclude_empty=True).find(module)
    return [pytest.param(test, id=test.name) for test in tests if test.examples]


@pytest.mark.parametrize("example", [example for name in MODULES for example in with_examples(name)])
def test_example(example, capsys):
    failed, tried = doctest.DocTestRunner().run(example)
    assert tried
    assert not failed, capsys.readouterr().out
