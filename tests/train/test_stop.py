"""Signals: the first finishes the step, a second ends at once, what was ignored stays so; and output that breaks.

Each case runs a small process of its own, without torch. Breaks that turn this file red: SIGHUP or SIGINT not heard,
SIGHUP heard under nohup, a launcher's echo taken for a second request.
"""

import os
import signal
import subprocess
import sys
import time

import pytest

from bert_lamb.cli import main as cli
from bert_lamb.cli.streams import patient_streams
from tests.launch import CHECKOUT

WAIT = """
import sys, time
from bert_lamb.train.stop import stop_on_signals
from bert_lamb.cli.streams import patient_streams
with patient_streams(), stop_on_signals() as stop, stop_on_signals() as inner:
    assert inner is stop
    print("ready", flush=True)
    until = time.monotonic() + float(sys.argv[1])
    while time.monotonic() < until and not (stop.is_asked and sys.argv[2] == "heeds"):
        time.sleep(0.02)
    print("asked" if stop.is_asked else "not asked", flush=True)
"""


def start(seconds, kind, *, ignored=()):
    def ignore():
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)

    started = subprocess.Popen(
        [sys.executable, "-c", WAIT, str(seconds), kind],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=ignore,
    )
    assert started.stdout.readline() == "ready\n"
    return started


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGHUP", "SIGINT"])
def test_the_first_signal_is_a_request(name):
    started = start(20, "heeds")
    started.send_signal(getattr(signal, name))
    out, err = started.communicate(timeout=20)
    assert (started.returncode, out) == (0, "asked\n")
    assert err == f"{name}: stopping after this step, with a checkpoint (a second SIGINT or SIGTERM: at once)\n"


def test_an_echo_is_no_second_request_and_a_second_request_ends_at_once():
    """A terminal and two launchers pass on one Ctrl-C in the same instant; whoever asks again later means it."""
    started = start(30, "does not heed")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTERM):
        started.send_signal(number)
    time.sleep(1.3)
    for number in (signal.SIGUSR1, signal.SIGHUP):  # SLURM's script asks again and again
        started.send_signal(number)
    time.sleep(0.2)
    assert started.poll() is None
    started.send_signal(signal.SIGTERM)
    started.communicate(timeout=5)
    assert started.returncode == 128 + signal.SIGTERM


def test_what_was_ignored_stays_ignored():
    """SIGHUP under nohup, SIGINT in a shell's background."""
    started = start(0.6, "heeds", ignored=(signal.SIGHUP, signal.SIGINT))
    for number in (signal.SIGHUP, signal.SIGINT):
        started.send_signal(number)
    assert started.communicate(timeout=20) == ("not asked\n", "")


def test_sigquit_ends_at_once():
    started = start(20, "does not heed")
    started.send_signal(signal.SIGQUIT)
    started.communicate(timeout=5)
    assert started.returncode == -signal.SIGQUIT


@pytest.mark.parametrize("words", [["pretrain", "seed=1"], ["--local_rank=0", "pretrain", "seed=1"]])
def test_signals_are_heard_before_torch_is_imported(words):
    """The command line listens before it imports what takes time; the deepspeed launcher's word comes first."""
    code = """
import os, signal, sys
from bert_lamb.cli import main as cli
from bert_lamb.train import stop
def run(command, overrides):
    assert not {"torch", "hydra", "numpy"} & set(sys.modules)
    os.kill(os.getpid(), signal.SIGUSR1)
    import time; time.sleep(0.2)
    return 7 if stop._active.is_asked else 8
cli._compose_and_run = run
sys.exit(cli.main(sys.argv[1:]))
"""
    ended = subprocess.run([sys.executable, "-c", code, *words], cwd=CHECKOUT, stderr=subprocess.DEVNULL, check=False)
    assert ended.returncode == 7


def broken_pipe():
    reader, writer = os.pipe()
    os.close(reader)
    return open(writer, "w")


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_reader_that_has_gone_away_costs_the_lines_only(monkeypatch, name):
    with broken_pipe() as stream:
        monkeypatch.setattr(sys, name, stream)
        with patient_streams():
            for _ in range(3):
                print("x" * 100_000, file=getattr(sys, name))
                print("y", file=getattr(sys, name), flush=True)
            os.write(stream.fileno(), b"a C library's line")  # goes nowhere, without SIGPIPE's error
        assert getattr(sys, name) is stream


def test_a_full_disk_under_a_log_file_costs_the_lines_only(monkeypatch):
    with open("/dev/full", "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        with patient_streams():
            print("x", file=sys.stderr, flush=True)
            print("y", file=sys.stderr, flush=True)


@pytest.mark.parametrize("closing", [">&-", "2>&-", ">/dev/full", "| true"])
def test_a_command_keeps_its_status_whoever_listens(tmp_path, closing):
    """Usage (stdout) and a mistake (stderr) into descriptors that are closed, full or read by nobody.

    A command whose result is what it prints fails where the disk had no room for that.
    """
    python = f"PYTHONPATH={CHECKOUT} {sys.executable} -m bert_lamb"
    script = f"set -o pipefail; {python} --help {closing}; echo $?; {python} nonsense {closing}; echo $?"
    ended = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    statuses = [line for line in ended.stdout.splitlines() if line.isdecimal()]
    assert statuses == ["2" if closing == ">/dev/full" else "0", "2"], ended
    assert ("no room on the disk under standard output" in ended.stderr) == (closing == ">/dev/full")
    assert "Traceback" not in ended.stderr
    assert "Exception ignored" not in ended.stderr


@pytest.mark.parametrize("words", [[], ["-h"], ["squad", "--help"], ["verify", "shards_dir=s"]])
def test_a_printed_result_without_room_fails(monkeypatch, capsys, words):
    """What these commands print is what they are called for."""
    monkeypatch.setattr(cli, "_main", lambda arguments: print("the result") or 0)
    with open("/dev/full", "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert cli.main(words) == 2
        assert cli.main(["report", "run_dir=r"]) == 0
    assert "no room on the disk under standard output" in capsys.readouterr().err
