"""The runs of a study in this process, for tests to which theirs mean nothing."""

from copy import deepcopy
from functools import cache

from bert_lamb.cli import main as cli
from bert_lamb.cli.compose import compose
from bert_lamb.study import command


def in_this_process(next_cell, launcher, *, at_once, stop, done):
    """Stands for run_all: the same command lines, without a process each."""
    while (cell := next_cell(set())) is not None:
        assert cli.main(["study", *launcher.words, f"study.cell={cell.name}"]) == 0
        done(cell, 0.0)
    return True


@cache
def composed(name, words):
    return compose(name, words)


def stand_ins(patch):
    """Runs in this process, and what Hydra has composed once, which takes longer than these runs."""
    patch.setattr(command, "run_all", in_this_process)
    patch.setattr("bert_lamb.cli.compose.compose", lambda name, words: deepcopy(composed(name, tuple(words))))
