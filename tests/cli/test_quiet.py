"""What libraries say is dropped by its words, not by who says it.

Truth: warnings that the installed libraries give. Launched runs, quiet and with -v, are in tests/pretraining.
Breaks that turn this file red: all of a library's warnings dropped, bars hidden on a terminal.
"""

import io
import logging
import warnings

import torch

from bert_lamb.cli import quiet
from bert_lamb.finetuning.glue.metrics import matthews

UNTESTED = "**** You are using ZeRO with an untested optimizer, proceed with caution *****"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def heard(tmp_path):
    """The warnings and log lines of what is on the list, and of what is not."""
    lines = io.StringIO()
    handler = logging.StreamHandler(lines)
    logging.getLogger("DeepSpeed").addHandler(handler)
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        quiet.be_quiet()
        matthews([1.0, 1.0], [1.0, 1.0])
        torch.save({"a": torch.ones(1)}, tmp_path / "a.pt", pickle_protocol=3)
        torch.load(tmp_path / "a.pt", weights_only=True)
        warnings.warn_explicit("something else", UserWarning, "file", 1, module="sklearn.metrics.other")
    for words in (UNTESTED, "something else"):
        logging.getLogger("DeepSpeed").warning(words)
    logging.getLogger("DeepSpeed").removeHandler(handler)
    return [str(one.message).partition(" in ")[0] for one in shown], lines.getvalue().splitlines()


def test_the_words_on_the_list_are_dropped_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.delenv(quiet.VARIABLE, raising=False)
    assert heard(tmp_path) == (["something else"], ["something else"])


def test_with_v_everything_is_shown(tmp_path, monkeypatch):
    monkeypatch.setenv(quiet.VARIABLE, "")  # which is as good as unset, and put back after the test
    for logger in quiet.RECORDS:
        logging.getLogger(logger).removeFilter(quiet._is_shown)
    assert quiet.take_flags(["pretrain", "-v", "recipe=demo"]) == ["pretrain", "recipe=demo"]
    said, lines = heard(tmp_path)
    assert said == ["A single label was found", "Detected pickle protocol 3", "something else"]
    assert lines == [UNTESTED, "something else"]


def test_bars_are_for_terminals(monkeypatch):
    monkeypatch.delenv(quiet.VARIABLE, raising=False)
    for stream, is_hidden in ((Terminal(), False), (io.StringIO(), True)):
        monkeypatch.delenv("HF_HUB_DISABLE_PROGRESS_BARS", raising=False)
        monkeypatch.setattr("sys.stderr", stream)
        quiet.be_quiet()
        assert ("HF_HUB_DISABLE_PROGRESS_BARS" in quiet.os.environ) == is_hidden
