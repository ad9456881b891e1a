"""A mistake is one line on whatever terminal, whatever it quotes.

Breaks that turn this file red are in mutations.txt.
"""

import pickle

import pytest

from bert_lamb.errors import MAX_CHARACTERS, UserError, UserErrors


@pytest.mark.parametrize("odd", ["\n", "\r", "\t", "\x1b[31m", "\0", "\x85", "\u2028", "\u202e", "\udce9"])
def test_what_would_move_the_cursor_is_escaped(odd):
    error = UserError(found=f"a{odd}b", expected="c", fix="d")
    assert error.found == f"a{odd}b"
    assert str(error) == f"found a{odd.encode('unicode_escape').decode()}b; expected c; fix: d".replace(
        "b[31m", "b[31m"
    )
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert len(str(UserErrors([error, error])).splitlines()) == 2


def test_what_can_be_seen_stays():
    text = "daten-\u00e9/\u4e2d\u6587/\U0001f642 'a' \\n"
    assert str(UserError(found=text, expected="x", fix="y")).startswith(f"found {text};")


def test_a_whole_file_is_not_quoted():
    line = str(UserError(found=f"begin{'x' * 10**6}end", expected="y" * MAX_CHARACTERS, fix="z"))
    assert len(line) < 2 * MAX_CHARACTERS + 100
    assert "beginxx" in line
    assert "xxend; expected yyy" in line
    assert "998,508 characters" in line
