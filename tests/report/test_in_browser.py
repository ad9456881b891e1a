"""report.html as a browser shows it: widths, contents, values under the pointer, scales, dark and print.

Truths: the lines that the run was made of; the paths that matplotlib drew, on which the pointer's dots must lie; what
the browser says of its own layout and console.
Breaks: tests/report/mutations.txt.
"""

import re

import pytest

from bert_lamb.report import report
from tests.report.browser import CHROMEDRIVER, CHROMIUM, browser
from tests.report.run_lines import heldout, make_run, make_scores, start, step, trust_ratios

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and CHROMEDRIVER), reason="no Chromium with its chromedriver (Debian: chromium, chromium-driver)"
)

WIDTHS = (400, 1300, 2000)
NUM_STEPS = {"phase1": 50, "phase2": 10}
BLUE = "#3d85d8"
NAMES = ["bert.bert.embeddings.word_embeddings.weight", "bert.bert.pooler.dense.weight"] + [
    f"bert.bert.encoder.layer.{layer}.attention.self.{matrix}.weight"
    for layer in range(24)
    for matrix in ("query", "key", "value")
]
SHARES = {"data": 0.01, "forward_backward": 0.8, "optimizer": 0.1, "agreement": 0.05, "logging": 0.04}


def loss_at(run_step: int) -> float:
    return 10 / run_step + run_step % 7 / 10


def lines() -> list[dict]:
    """As of a BERT-Large on many GPUs: every table and figure that there is, with numbers as long as they become."""
    found = []
    run_step = 0
    for phase, num_steps in NUM_STEPS.items():
        found.append(
            start(phase, max_seq_length=512, global_batch_size=65_536, total_steps=num_steps, peak_tflops=989.5)
        )
        for number in range(1, num_steps + 1):
            run_step += 1
            measured = {
                "tokens_per_second": 123_456_789.0,
                "positions_per_second": 234_567_890.0,
                "sequences_per_second": 1e5,
                "model_tflops": 512.345,
                "mfu": 0.518,
                "peak_reserved_bytes": 77_123_456_789,
                **{f"{part}_share": share for part, share in SHARES.items()},
            }
            found.append(step(phase, number, mlm_loss=loss_at(run_step), seconds=4.5, **measured))
            if number % 10 == 0:
                norms = {name: 1.0 + i * number for i, name in enumerate(NAMES)}
                found.append(trust_ratios(phase, number, trust_ratio=norms, param_norm=norms, update_norm=norms))
        found.append(heldout(phase, num_steps, num_instances=1_234_567, mlm_loss=6.5))
    return found


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    root = tmp_path_factory.mktemp("browser")
    run_dir = make_run(root / "run", lines())
    command = "bert-lamb pretrain recipe=lamb_32k " + "+".join(["a_word_without_a_blank"] * 20)
    (run_dir / "versions.json").write_text(f'{{"command": "{command}"}}')
    (run_dir / "config.yaml").write_text("shards: /" + "long/" * 80 + "\n")
    labels = {"pretrained": "pretrained", "random weights": "random"}
    scores = {
        label: make_scores(root / label, f1=60.0, exact_match=50.0, weights=weights, dataset_name="questions " * 4)
        for label, weights in labels.items()
    }
    other = make_run(root / "other", [{**line, "mlm_loss": 7.0} if "mlm_loss" in line else line for line in lines()])
    report(run_dir=run_dir, score_dirs=scores, compare=[other])
    compared = (run_dir / "report.html").rename(root / "compared.html")
    report(run_dir=run_dir, score_dirs=scores)
    return {"run": run_dir / "report.html", "compared": compared}


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.parametrize("name", ["run", "compared"])
def test_the_page_never_scrolls_sideways(chromium, page, name):
    """A table may, in a box of its own, where the page is narrow; on a wide page none does."""
    chromium.open(page[name])
    for width in WIDTHS:
        chromium.look(width=width)
        inner, whole = chromium.run("return [innerWidth, document.documentElement.scrollWidth]")
        assert inner == width
        assert whole <= width
        beyond = chromium.run(
            "return [...document.querySelectorAll('.table, .heat')].map(box => box.scrollWidth - box.clientWidth)"
        )
        assert len(beyond) >= 8
        assert (max(beyond) > 0) == (width == 400)
        shown = chromium.run(
            """return ['folded', 'side'].filter(
            name => document.querySelector('.contents.' + name).offsetParent !== null)"""
        )
        assert shown == (["folded"] if width == 400 else ["side"])
    assert chromium.messages() == []


def test_contents_stay_in_sight_and_lead_to_their_sections(chromium, page):
    chromium.open(page["run"])
    chromium.look(width=1300)
    links = chromium.run("return [...document.querySelectorAll('.side a')].map(link => [link.hash, link.textContent])")
    heads = chromium.run("return [...document.querySelectorAll('h2')].map(head => ['#' + head.id, head.textContent])")
    assert links == heads
    chromium.run("scrollTo({top: document.body.scrollHeight, behavior: 'instant'})")
    top = chromium.run("return document.querySelector('.side').getBoundingClientRect().top")
    assert 0 <= top < 100


def drawn_points(chromium) -> list[tuple[float, float]]:
    """The vertices of the masked LM's path, as matplotlib drew it in the drawing of the loss that is shown."""
    path = chromium.run(
        """const shown = [...document.querySelectorAll('.plot')][0].querySelectorAll('[data-frame]');
        const drawing = [...shown].find(one => one.offsetParent !== null);
        return [...drawing.querySelectorAll('path')].filter(one => one.style.stroke && one.getAttribute('clip-path')
          && one.getAttribute('style').includes('stroke: ' + arguments[0])).map(one => one.getAttribute('d'))""",
        BLUE,
    )
    (d,) = path
    return [(float(x), float(y)) for x, y in re.findall(r"[ML] ([\d.]+) ([\d.]+)", d)]


def point_at_step(chromium, run_step: int) -> tuple[str, list[tuple[float, float]]]:
    """Point at the place where that step is drawn; what is then shown, and the centres of its dots in the SVG."""
    x, _ = drawn_points(chromium)[run_step - 1]
    left, top, width, height, units = chromium.run(
        """const plot = document.querySelector('.plot');
        plot.scrollIntoView({block: 'center', behavior: 'instant'});
        const svg = [...plot.querySelectorAll('svg')].find(one => one.getBoundingClientRect().width > 0);
        const area = svg.getBoundingClientRect();
        return [area.left, area.top, area.width, area.height, svg.viewBox.baseVal.width]"""
    )
    chromium.point_at(left + x / units * width, top + height / 2)
    text = chromium.run("const tip = document.querySelector('.tip'); return tip.hidden ? '' : tip.innerText")
    dots = chromium.run(
        """return [...document.querySelectorAll('.crosshair circle')].filter(dot => dot.getAttribute('fill')
        === arguments[0]).map(dot => [dot.cx.baseVal.value, dot.cy.baseVal.value])""",
        BLUE,
    )
    return text, [tuple(dot) for dot in dots]


def test_the_pointer_finds_each_curves_value_at_both_scales(chromium, page):
    chromium.open(page["run"])
    chromium.look(width=1300)
    linear = drawn_points(chromium)
    for scale in ("linear", "logarithmic"):
        if scale == "logarithmic":
            chromium.run("document.querySelector('.switch input').click()")
            assert drawn_points(chromium) != linear
        text, dots = point_at_step(chromium, 23)
        assert text.splitlines()[0] == "step 23 (phase1, 23)"
        assert f"masked LM {loss_at(23):.4g}" in " ".join(text.split())
        assert "next sentence 0.5" in " ".join(text.split())
        assert "held out" not in text  # not measured yet
        (dot,) = dots
        assert dot == pytest.approx(drawn_points(chromium)[22], abs=0.05)
    text, _ = point_at_step(chromium, 53)
    assert text.splitlines()[0] == "step 53 (phase2, 3)"
    assert "held out 6.5 at 50" in " ".join(text.split())
    chromium.point_at(1, 1)
    assert chromium.run("return document.querySelector('.tip').hidden")
    assert chromium.run("return document.querySelectorAll('.crosshair').length") == 0
    assert chromium.messages() == []


def test_arrow_keys_move_the_crosshair(chromium, page):
    chromium.open(page["run"])
    chromium.look(width=1300)
    chromium.run("document.querySelector('.plot').focus()")
    for key, expected in (("ArrowRight", "step 0"), ("ArrowRight", "step 1"), ("ArrowLeft", "step 0")):
        chromium.press(key)
        assert chromium.run("return document.querySelector('.tip .step').textContent").startswith(expected)
    chromium.press("Escape")
    assert chromium.run("return document.querySelector('.tip').hidden")


def test_compared_runs_have_their_values_side_by_side(chromium, page):
    chromium.open(page["compared"])
    chromium.look(width=1300)
    text, _ = point_at_step(chromium, 23)
    words = " ".join(text.split())
    assert f"run {loss_at(23):.4g}" in words
    assert "other 7" in words


def test_dark_paper_has_light_ink(chromium, page):
    chromium.open(page["run"])
    brightness = {}
    for scheme in ("light", "dark"):
        chromium.look(width=1300, scheme=scheme)
        paper, ink, tick = chromium.run(
            """return [getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color,
            getComputedStyle(document.querySelector('.plot text')).fill]"""
        )
        brightness[scheme] = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (paper, ink, tick)]
    (paper, *inks), (dark_paper, *dark_inks) = brightness["light"], brightness["dark"]
    assert all(paper - ink > 400 for ink in inks)
    assert all(ink - dark_paper > 400 for ink in dark_inks)


def test_print_clips_nothing(chromium, page):
    """On B5 paper, 148 mm between the margins, of a reader whose screen is dark."""
    chromium.open(page["run"])
    chromium.look(width=559, scheme="dark", medium="print")
    assert chromium.run("return document.documentElement.scrollWidth") <= 559
    beyond = chromium.run(
        "return [...document.querySelectorAll('.table, .heat')].map(box => box.scrollWidth - box.clientWidth)"
    )
    assert max(beyond) <= 0
    hidden = chromium.run(
        "return [...document.querySelectorAll('.contents, .switch')].map(one => getComputedStyle(one).display)"
    )
    assert set(hidden) == {"none"}
    assert chromium.run("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
