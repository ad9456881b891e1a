"""Completion as a shell does it: TAB is pressed in a real bash and zsh, and what the shell then reads is compared.

Truth: what the files of conf/ and the schema's fields are called, written down here.
Breaks that turn this file red: options of another command offered, what stands before "=" left in bash's answers.
"""

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time

import pytest

from bert_lamb.cli.completion import words_for
from bert_lamb.cli.main import SUMMARIES
from tests.launch import CHECKOUT

SHELLS = {"bash": ["bash", "--norc", "--noprofile", "-i"], "zsh": ["zsh", "-f", "-i"]}
# How each shell starts here: a prompt that can be waited for, all candidates at the first TAB.
PREPARE = {
    "bash": 'eval "$(bert-lamb completion bash)"; bind "set show-all-if-ambiguous on"; PS1="ready"":> "\n',
    "zsh": 'eval "$(bert-lamb completion zsh)"; bindkey -e; PS1="ready"":> "\n',
}
TAB, LINE_START, CLEAR = "\t", "\x01", "\x15"


@pytest.fixture(scope="module", params=SHELLS)
def press(request, tmp_path_factory):
    """Type keys in the shell, and give what it has written when it is waiting again."""
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    home = tmp_path_factory.mktemp("home")
    program = home / "bin" / "bert-lamb"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nPYTHONPATH={CHECKOUT} exec {sys.executable} -m bert_lamb "$@"\n')
    program.chmod(0o755)
    (home / "shards_of_mine").mkdir()
    environment = {"PATH": f"{program.parent}:{os.environ['PATH']}", "HOME": str(home), "TERM": "vt100"}
    ours, theirs = pty.openpty()
    shell = subprocess.Popen(
        SHELLS[request.param],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=home,
        env=environment,
        start_new_session=True,
    )
    os.close(theirs)

    def press(keys, until="ready:> "):
        os.write(ours, keys.encode())
        written, deadline = "", time.monotonic() + 60
        while not re.search(until, written):
            assert time.monotonic() < deadline, written
            if select.select([ours], [], [], 0.1)[0]:
                written += os.read(ours, 65536).decode(errors="replace")
        return written

    press(PREPARE[request.param])
    yield press
    shell.kill()
    shell.wait()
    os.close(ours)


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("bert-lamb pret", "<bert-lamb><pretrain>"),
        ("bert-lamb pretrain recipe=lamb_p", "<bert-lamb><pretrain><recipe=lamb_paper>"),
        ("bert-lamb squad runtime.zero\t2", "<bert-lamb><squad><runtime.zero_stage=2>"),
        ("bert-lamb verify shards_dir=shards_o", "<bert-lamb><verify><shards_dir=shards_of_mine"),
    ],
)
def test_a_word_is_completed(press, typed, completed):
    """The line that came of it is handed to printf, which shows the words that the shell would have run."""
    keys = f"{typed}{TAB}{LINE_START}printf '<%s>' \n"
    assert completed in press(keys, until=r"<bert-lamb>.*ready:> ")


def test_what_is_possible_is_listed(press):
    press(f"bert-lamb pre{TAB}", until=r"prepare\s+pretrain")
    press(f"{CLEAR}\n")
    press(f"bert-lamb pretrain recipe=la{TAB}{TAB}", until=r"(?s)lamb_16k.*lamb_32k.*lamb_paper")
    press(f"{CLEAR}\n")


def test_candidates_are_those_of_the_command():
    def words(line):
        return words_for(f"bert-lamb {line}", SUMMARIES)

    assert words("pre") == ["prepare", "pretrain"]
    assert words("pretrain optimizer=a") == ["optimizer=adagrad", "optimizer=adam", "optimizer=adamw"]
    assert {"recipe=lamb_32k", "recipe=resnet50_32k"} & set(words("pretrain recipe=")) == {"recipe=lamb_32k"}
    assert words("vision -v recipe=m") == ["recipe=mnist_lenet"]
    assert words("pretrain if_exists=re") == ["if_exists=refuse", "if_exists=restart", "if_exists=resume"]
    assert words("pretrain -m runtime.tf32=true,") == ["runtime.tf32=true,false", "runtime.tf32=true,true"]
    assert words("pretrain recipe=demo phases.") == ["phases.phase1.", "phases.phase2."]
    assert words("glue tasks.s") == ["tasks.sst2.", "tasks.stsb."]
    assert words("study spread=") == ["spread=study/ray", "spread=study/slurm"]
    assert words("prepare spread=") == ["spread=ray", "spread=slurm"]
    assert "phases.any.peak_lr=" in words("pretrain phases.any.pe")
    assert words("pretrain ~phases.phase2.pe") == ["~phases.phase2.peak_lr="]
    assert words("pretrain quiet") == words("nothing recipe=") == words("push model_dir=") == []


def test_an_option_of_ones_own_folder_is_offered(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "bert_mine.yaml").write_text("num_layers: 3\n")
    line = f"bert-lamb pretrain --config-dir {tmp_path} model=bert_mi"
    assert words_for(line, SUMMARIES) == ["model=bert_mine", "model=bert_mini"]
