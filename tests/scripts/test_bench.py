"""The benchmark of a step runs in one call, counts bytes as worked out here on paper, and times nothing that is wrong.

Truths: bytes by hand. Breaks that turn this file red: a byte count with a pass or a dtype left out or too many, the
exempt group counted as adapted, a row or a field missing, an optimizer compared at another step than `reference`.
"""

import json
import os
import subprocess
import sys

import pytest

from tests.launch import CHECKOUT

SHAPES = [[4, 3], [5], [2, 2]]
ADAPTED, EXEMPT = 16, 5  # elements of the matrices, of the bias
FORMS = {"list", "flat"}
FIELDS = {
    "kind",
    "title",
    "form",
    "tiling",
    "chunks",
    "dtypes",
    "reason",
    "median_ms",
    "min_ms",
    "max_ms",
    "host_ms",
    "counted_bytes",
    "counted_bytes_per_parameter",
    "gb_per_s",
    "share_of_copy",
    "launches",
    "ratio_to_adamw_foreach",
    "ratio_to_adamw_fused",
    "max_relative_difference",
    "ms",
    "host_ms_samples",
}


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """Low-precision parameters are fp16 here: Triton's interpreter cuts bf16 off where the GPU rounds."""
    folder = tmp_path_factory.mktemp("bench")
    (folder / "shapes.json").write_text(json.dumps(SHAPES))
    command = [sys.executable, "scripts/bench/lamb_step", "--model", str(folder / "shapes.json")]
    settings = "--device cpu --params fp16 --grad-dtype bf16 --repeats 1 --warmup 0 --copy-mb 1 --num-all-reduces 3"
    settings += " --tilings 64x2x128 16x1x16"
    done = subprocess.run(
        [*command, *settings.split(), "--out", str(folder / "out.json")],
        cwd=CHECKOUT,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {**json.loads((folder / "out.json").read_text()), "stdout": done.stdout}


@pytest.fixture(scope="module")
def rows(result):
    """Those of the optimizers as they are."""
    return {(row["kind"], row["form"]): row for row in result["rows"] if row["tiling"] is None}


def test_file_has_what_a_number_is_read_with(result):
    assert result["num_tensors"] == len(SHAPES)
    assert result["num_parameters"] == ADAPTED + EXEMPT
    assert result["command"].startswith("python scripts/bench/lamb_step --model")
    assert {"commit", "versions", "hardware", "settings", "zero", "copy"} <= set(result)
    assert result["versions"]["torch"]
    assert result["hardware"]["cpu"]
    assert result["copy"]["bytes_read_and_written"] == 2_000_000
    assert result["copy"]["gb_per_s"] > 0
    assert result["zero"]["all_reduce"]["reason"] is None
    assert result["zero"]["all_reduce"]["shape"] == [2, 2]
    assert len(result["zero"]["all_reduce"]["ms"]) == 3


def test_every_row_has_numbers_or_a_reason(result, rows):
    both = (
        "lamb-reference",
        "lamb-foreach",
        "lamb-fused",
        "lars-foreach",
        "lars-fused",
        "adamw-foreach",
        "adamw-fused",
    )
    expected = {(kind, form) for kind in both for form in FORMS}
    expected |= {(kind, "list") for kind in ("timm", "deepspeed", "apex")}
    expected |= {(f"unaware-{implementation}", "flat") for implementation in ("foreach", "fused")}
    assert set(rows) == expected
    for (kind, form), row in rows.items():
        assert set(row) == FIELDS
        if row["reason"] is None:
            assert len(row["ms"]) == len(row["host_ms_samples"]) == 1
            assert row["min_ms"] == row["median_ms"] == row["max_ms"] > 0
            assert row["launches"] > 0
            assert row["ratio_to_adamw_fused"] > 0
        else:
            assert row["median_ms"] is None
            assert "\n" not in row["reason"]
            may_lack = {"deepspeed", "apex", "timm"} | ({kind} if "triton is not installed" in row["reason"] else set())
            assert kind in may_lack, f"{kind}, {form}: {row['reason']}"
    table = result["stdout"].strip().splitlines()[-len(result["rows"]) - 1 :]
    assert table[0].startswith("optimizer")
    for line, row in zip(table[1:], result["rows"], strict=True):
        assert line.startswith(row["title"])
        assert line.endswith(row["reason"] or ("-" if row["max_relative_difference"] is None else ""))


def test_tilings_of_the_fused_kernels_are_rows_of_their_own(result, rows):
    """Right in what they compute, each under its name, in both forms."""
    swept = [row for row in result["rows"] if row["tiling"] is not None]
    found = [(row["kind"], row["form"], row["tiling"]) for row in swept]
    kinds, tilings = ("lamb-fused", "lars-fused"), ("64x2x128", "16x1x16")
    assert sorted(found) == sorted((kind, form, tiling) for kind in kinds for form in FORMS for tiling in tilings)
    for row in swept:
        own = rows[row["kind"], row["form"]]
        assert row["title"] == f"{own['title']} {row['tiling']}"
        assert row["counted_bytes"] == own["counted_bytes"]
        if own["reason"] is None:
            assert row["max_relative_difference"] < 1e-5
            assert own["chunks"] == [4_096, 4_096]
            assert row["chunks"] == 2 * [int(row["tiling"].split("x")[-1])]


def test_tilings_that_cannot_be_are_refused():
    sys.path.insert(0, str(CHECKOUT / "scripts" / "bench"))
    from lamb_step.main import parse

    assert parse(["--tilings", "512x4x4096", "1024x8x16384"]).tilings == ["512x4x4096", "1024x8x16384"]
    for tiling in ("512", "512x4", "500x4x1000", "512x3x1024", "512x4x768", "ax4x512", "0x4x512", "8x1x8", "16x1x0"):
        with pytest.raises(SystemExit):
            parse(["--tilings", tiling])


BY_HAND = {
    # bf16 gradients are read for the norm, 2, and in pass 1: g 2, w 4, m 8, v 8; pass 3: w 8, m 4, v 4, fp16 copy 2.
    # Not adapted, all in one pass: g 2, w 8, m 8, v 8, copy 2.
    ("lamb-fused", "list"): ADAPTED * (2 + 22 + 18) + EXEMPT * (2 + 28),
    # Under ZeRO the engine takes the norm and makes the copy.
    ("lamb-fused", "flat"): ADAPTED * (22 + 16) + EXEMPT * 26,
    ("unaware-fused", "flat"): ADAPTED * (22 + 16) + EXEMPT * 26,
    # No v: norm 2; g 2, w 4, m 8; w 8, m 4, copy 2. In one pass: g 2, w 8, m 8, copy 2.
    ("lars-fused", "list"): ADAPTED * (2 + 14 + 14) + EXEMPT * (2 + 20),
    ("lars-fused", "flat"): ADAPTED * (14 + 12) + EXEMPT * 18,
    # fp32 throughout: g 4, w 8, m 8, v 8.
    ("adamw-fused", "list"): (ADAPTED + EXEMPT) * 28,
    ("adamw-fused", "flat"): (ADAPTED + EXEMPT) * 28,
}


def test_bytes_are_those_worked_out_by_hand(rows):
    counted = {key: row["counted_bytes"] for key, row in rows.items() if row["counted_bytes"] is not None}
    expected = {key: total for key, total in BY_HAND.items() if rows[key]["reason"] is None}
    assert counted == expected
    for key, total in expected.items():
        row = rows[key]
        assert row["counted_bytes_per_parameter"] == pytest.approx(total / (ADAPTED + EXEMPT))
        assert row["gb_per_s"] == pytest.approx(total / row["median_ms"] / 1e6)


def test_who_has_the_formula_agrees_with_reference(rows):
    """1e-5: fp32 rounding of w, whose elements change by about a tenth of their size."""
    compared = {key: row for key, row in rows.items() if row["max_relative_difference"] is not None}
    assert {kind for kind, _ in compared} >= {"lamb-reference", "lamb-foreach", "lars-foreach"}
    assert {kind for kind, _ in compared} <= {kind for kind, _ in rows if kind.startswith(("lamb", "lars", "timm"))}
    for key, row in compared.items():
        assert row["reason"] is None, key
        assert row["max_relative_difference"] < 1e-5, key
