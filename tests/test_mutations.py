"""The lists of mutations fit the code as it is: each applies, once. `python tests/mutate.py` tries them."""

import subprocess
from pathlib import Path

import pytest

from tests.launch import CHECKOUT
from tests.mutate import read_lists


@pytest.mark.parametrize("mutation", read_lists(), ids=lambda mutation: mutation.name)
def test_the_mutation_still_applies(mutation):
    text = (CHECKOUT / mutation.file).read_text()
    assert text.count(mutation.old) == 1
    changed = text.replace(mutation.old, mutation.new)
    assert changed != text
    if mutation.file.endswith(".py"):
        compile(changed, mutation.file, "exec")
    elif mutation.file.endswith(".sh"):
        subprocess.run(["bash", "-n"], input=changed, text=True, check=True, timeout=30)
    assert mutation.tests
    for test in mutation.tests:
        assert (CHECKOUT / Path(test.split("::")[0])).exists(), test


def test_names_are_unique():
    names = [mutation.name for mutation in read_lists()]
    assert len(set(names)) == len(names)
