"""The documents that are used -> groups that supply each other with random second segments (station 3)."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from data_prep.documents.selection import Chosen
from data_prep.documents.store import BlockFiles

MIN_DOCUMENTS_OF_GROUP = 2  # a random pair needs another document


@dataclass(frozen=True)
class Group:
    """Documents of one split that supply each other with random second segments."""

    number: int
    split: str
    copy: int  # 0 for the first use of its documents, 1 for the second, ...
    members: tuple[tuple[BlockFiles, np.ndarray], ...]  # (block, [rows]) in order
    has_other_copies: bool  # some of its documents are in other groups too


def make_groups(chosen: Chosen, *, group_tokens: int) -> list[Group]:
    """Groups of one split each, in the order of the documents, closed when they hold `group_tokens`.

    A last group that would be left with less than two documents joins the one before. Where documents are used more
    than once, all first uses come before all second ones, and no group holds a document twice.
    """
    groups: list[Group] = []
    for split in ("train", "heldout"):
        is_of_split = chosen.is_heldout == (split == "heldout")
        for copy in range(int(chosen.num_copies.max(initial=0))):
            places = np.flatnonzero(is_of_split & (chosen.num_copies > copy))
            for start, stop in _cuts(chosen.num_tokens[places], group_tokens):
                members = _members(chosen, places[start:stop])
                has_other_copies = bool((chosen.num_copies[places[start:stop]] > 1).any())
                groups.append(Group(len(groups), split, copy, members, has_other_copies))
    return groups


def _cuts(num_tokens: np.ndarray, group_tokens: int) -> list[tuple[int, int]]:
    """Where groups begin and end among documents of these sizes."""
    totals = np.concatenate([[0], np.cumsum(num_tokens)])
    bounds = [0]
    while bounds[-1] < len(num_tokens):
        full = int(np.searchsorted(totals, totals[bounds[-1]] + group_tokens, side="left"))
        bounds.append(min(max(full, bounds[-1] + MIN_DOCUMENTS_OF_GROUP), len(num_tokens)))
    if len(bounds) > 2 and bounds[-1] - bounds[-2] < MIN_DOCUMENTS_OF_GROUP:
        del bounds[-2]
    return list(pairwise(bounds))


def _members(chosen: Chosen, places: np.ndarray) -> tuple[tuple[BlockFiles, np.ndarray], ...]:
    block_of = chosen.block[places]
    starts = np.flatnonzero(np.diff(block_of, prepend=-1))
    return tuple(
        (chosen.blocks[block_of[run[0]]], chosen.row[places[run]])
        for run in np.split(np.arange(len(places)), starts[1:])
        if len(run)
    )
