"""Progress that suits where it is read: a moving bar on a terminal, a plain line now and then in a log file.

Every room may import this one. Both forms show the rate and the time left.
"""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TextIO, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")

LINE_INTERVAL_SECONDS = 10.0


class Progress:
    """Count units of work towards a total and show how far, how fast and how long still.

    total: number of units, or None when it is not known beforehand. unit: what is counted, in the plural ("steps").
    scale: so many of what is counted are one of what is shown: 10**6 where bytes are counted and `unit` is "MB".
    is_shown: False for the ranks that should stay silent.
    """

    def __init__(
        self,
        description: str,
        *,
        total: int | None,
        unit: str,
        initial: int = 0,
        scale: int = 1,
        is_shown: bool = True,
        stream: TextIO | None = None,
        line_interval_seconds: float = LINE_INTERVAL_SECONDS,
    ) -> None:
        self.stream = stream or sys.stderr
        self.description, self.total, self.unit = description, total, unit
        self.done, self.initial = initial, initial
        self.done_at_last_line: int | None = None
        self.note, self.scale = "", scale
        self.line_interval_seconds = line_interval_seconds
        self.started_at = self.last_line_at = time.monotonic()
        self.is_shown = is_shown
        self.bar = None
        if is_shown and self.stream.isatty():
            self.bar = tqdm(
                total=total,
                initial=initial,
                desc=description,
                unit=f" {unit}",
                unit_scale=1 / scale if scale > 1 else False,
                file=self.stream,
                dynamic_ncols=True,
            )

    def update(self, count: int = 1, note: str = "") -> None:
        """Add `count` finished units; `note` is a short text such as the current loss."""
        self.done += count
        self.note = note or self.note
        with self._without_reader():
            if self.bar is not None:
                self.bar.set_postfix_str(self.note, refresh=False)
                self.bar.update(count)
            elif self.is_shown and time.monotonic() - self.last_line_at >= self.line_interval_seconds:
                self._print_line()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._without_reader():
            if self.bar is not None:
                self.bar.close()
            elif self.is_shown and kind is None and self.done_at_last_line != self.done:
                self._print_line()

    @contextmanager
    def _without_reader(self) -> Iterator[None]:
        """A terminal or a pipe that has gone away, or a full disk under a log, ends the lines, never the work."""
        try:
            yield
        except OSError:
            self.is_shown, self.bar = False, None

    def _print_line(self) -> None:
        self.last_line_at, self.done_at_last_line = time.monotonic(), self.done
        elapsed = max(self.last_line_at - self.started_at, 1e-9)
        rate = (self.done - self.initial) / elapsed
        of_total = f"/{self._shown(self.total)}" if self.total is not None else ""
        left = f", {(self.total - self.done) / rate:.0f} s left" if self.total is not None and rate > 0 else ""
        note = f" | {self.note}" if self.note else ""
        speed = f"{rate / self.scale:,.1f}/s"
        print(
            f"{self.description}: {self._shown(self.done)}{of_total} {self.unit}, {speed}, {elapsed:.0f} s{left}{note}",
            file=self.stream,
            flush=True,
        )

    def _shown(self, count: int) -> str:
        return f"{count:,}" if self.scale == 1 else f"{count / self.scale:,.1f}"


def track(items: Iterable[Item], description: str, *, total: int | None, unit: str) -> Iterator[Item]:
    """Yield from `items` while showing progress."""
    with Progress(description, total=total, unit=unit) as progress:
        for item in items:
            yield item
            progress.update()
