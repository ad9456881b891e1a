"""Documents that are used more than once: what is left out of one copy may be in an instance of another (station 3)."""

from collections.abc import Sequence

import numpy as np

from data_prep.instances.cutting import CuttingSettings, left_out_path, open_group
from data_prep.instances.groups import Group
from data_prep.instances.left_out import count_left_out, in_both


def count_left_out_of_all_copies(
    group: Group, other_copies: Sequence[Group], lengths: Sequence[int], settings: CuttingSettings
) -> dict[int, dict[str, int]]:
    """By length and reason, the tokens of a group's documents that are in no instance of any of their copies.

    group: of first copies. other_copies: the groups of the other copies. All of them are laid down.
    """
    bounds = _bounds_of_documents(group, settings)
    ranges = {length: np.load(left_out_path(group, length, settings)) for length in lengths}
    for other in other_copies:
        bounds_of_other = _bounds_of_documents(other, settings)
        shared = [number for number in bounds_of_other if number in bounds]
        if not shared:
            continue
        starts, stops = np.array([bounds_of_other[number] for number in shared]).T
        shift = np.array([bounds[number][0] for number in shared]) - starts
        # Of a document that is not among the other group's, that group holds nothing.
        absent = [(*bounds[number], 0) for number in bounds if number not in bounds_of_other]
        for length in lengths:
            found = np.load(left_out_path(other, length, settings))
            place = np.searchsorted(starts, found[:, 0], side="right") - 1
            is_shared = (place >= 0) & (found[:, 0] < stops[place])
            found = found[is_shared]
            found[:, :2] += shift[place[is_shared], None]
            unused_by_other = np.array(sorted([*absent, *map(tuple, found.tolist())]), np.int64).reshape(-1, 3)
            ranges[length] = in_both(ranges[length], unused_by_other)
    return {length: count_left_out(found) for length, found in ranges.items()}


def _bounds_of_documents(group: Group, settings: CuttingSettings) -> dict[int, tuple[int, int]]:
    """Document number -> its first token in the group and the one after its last; in order."""
    documents, _ = open_group(group, settings, has_sentences=False)
    return {document.number: (document.sentence_offsets[0], document.sentence_offsets[-1]) for document in documents}
