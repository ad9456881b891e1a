"""The lines that a log file gets. Breaks that turn it red: a rate not scaled, time left by the whole total."""

import io

import pytest

from bert_lamb import progress
from bert_lamb.progress import Progress


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        (1, "reading: 3,000,000/12,000,000 bytes, 600,000.0/s, 5 s, 15 s left | a\n"),
        (10**6, "reading: 3.0/12.0 bytes, 0.6/s, 5 s, 15 s left | a\n"),
    ],
)
def test_a_line_counts_what_is_shown(monkeypatch, scale, expected):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    with Progress("reading", total=12_000_000, unit="bytes", scale=scale, stream=stream) as shown:
        now[0] += 5
        shown.update(3_000_000, note="a")
    assert stream.getvalue() == expected


def test_lines_come_now_and_then_and_a_resumed_run_counts_its_own_speed(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    with Progress("step", total=100, unit="steps", initial=50, stream=stream, line_interval_seconds=10.0) as shown:
        for _ in range(25):
            now[0] += 1
            shown.update()
    assert stream.getvalue().splitlines() == [
        "step: 60/100 steps, 1.0/s, 10 s, 40 s left",
        "step: 70/100 steps, 1.0/s, 20 s, 30 s left",
        "step: 75/100 steps, 1.0/s, 25 s, 25 s left",
    ]


def test_the_last_line_comes_once(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    with Progress("step", total=2, unit="steps", stream=stream, line_interval_seconds=10.0) as shown:
        now[0] = 20
        shown.update(2)
    assert stream.getvalue() == "step: 2/2 steps, 0.1/s, 20 s, 0 s left\n"


class Gone(io.StringIO):
    """A terminal that was closed, or a pipe whose reader has ended."""

    def __init__(self, *, is_terminal, after):
        super().__init__()
        self.is_terminal, self.left = is_terminal, after

    def isatty(self):
        return self.is_terminal

    def write(self, text):
        self.left -= 1
        if self.left < 0:
            raise OSError(5, "Input/output error")
        return super().write(text)


@pytest.mark.parametrize("is_terminal", [False, True])
@pytest.mark.parametrize("after", [2, 0])
def test_a_reader_that_goes_away_does_not_end_the_work(is_terminal, after):
    stream = Gone(is_terminal=is_terminal, after=after)
    with Progress("step", total=200, unit="steps", stream=stream, line_interval_seconds=0.0) as shown:
        for _ in range(200):
            shown.update()
    assert shown.done == 200
