"""Today's curves are yesterday's: small fixed runs against the losses and weights committed in curves.json.

fp32 sums in another order on another processor, so losses are compared to 1e-5 of their value and the figures of a
weight to 1e-4 of its norm: thirteen steps of LAMB, or sixteen of AdamW, carry rounding on, and where a gradient nearly
cancels they enlarge it. A schedule one step late, another mask or another sum is off by more than 1e-3.
`python -m tests.golden.curves` rewrites the file; CHANGELOG.md then says why a curve has changed.
"""

import json

import pytest

from tests.golden.curves import FILE, RUNS

GOLDEN = json.loads(FILE.read_text())


@pytest.mark.parametrize("name", RUNS)
def test_the_curve_is_the_committed_one(name, tmp_path):
    found, golden = RUNS[name](tmp_path), GOLDEN[name]
    assert found["losses"].keys() == golden["losses"].keys()
    for phase, losses in golden["losses"].items():
        assert found["losses"][phase] == pytest.approx(losses, rel=1e-5), phase
    assert found["weights"].keys() == golden["weights"].keys()
    for weight, (norm, projection) in golden["weights"].items():
        assert found["weights"][weight] == pytest.approx([norm, projection], abs=1e-4 * norm, rel=0), weight
