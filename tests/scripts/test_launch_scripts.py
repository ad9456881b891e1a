"""The launch stories in scripts/: what they start, what they refuse, when a SLURM job comes back to the queue.

Launchers are stand-ins that print their arguments; tests/cluster runs real ones.
Breaks that turn this file red: a missing hostfile accepted, a fixed port, a requeue decided by srun's status.
"""

import os
import re
import signal
import subprocess
import time

import pytest

from tests.launch import CHECKOUT

SAY = '#!/usr/bin/env bash\nprintf "%s\\n" "$0" "$@"\n'
HOSTS = "# the machines\nhost1 slots=8\n\nhost2 slots=4 # the small one\n"


@pytest.fixture
def machine(tmp_path):
    """A folder of stand-ins that comes first on the PATH."""
    for name in ("deepspeed", "torchrun", "pdsh"):
        install(tmp_path, name, SAY)
    (tmp_path / "hosts").write_text(HOSTS)
    return tmp_path


def install(folder, name, text):
    (folder / "bin").mkdir(exist_ok=True)
    program = folder / "bin" / name
    program.write_text(text)
    program.chmod(0o755)


def call(machine, script, *words, path=None, before="", cwd=None, **environment):
    path = path or f"{machine}/bin:/usr/local/bin:/usr/bin:/bin"
    kept = {"PATH": path, "HOME": str(machine)}
    return subprocess.run(
        ["bash", "-c", f'{before}exec bash "$@"', "_", str(CHECKOUT / "scripts" / "launch" / script), *words],
        env={**kept, **environment},
        cwd=cwd or machine,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def on_hosts(machine, *words, **environment):
    return call(machine, "hostfile.sh", *words, **{"HOSTFILE": "hosts", "MASTER_ADDR": "host1", **environment})


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (None, "found no readable file nothing; expected a file with a line"),
        ("", "found HOSTFILE=h with no host in it"),
        ("# only this\n\n", "found HOSTFILE=h with no host in it"),
        ("host1\n", "found HOSTFILE=h with line 1 of it: host1; expected"),
        ("host1 slots=8\nhost2 slot=8\n", "with line 2 of it: host2 slot=8"),
        ("host1 slots=0\n", "with line 1 of it: host1 slots=0"),
        ("host1 slots=8 host2 slots=8\n", "with line 1 of it"),
        ("host1:8\n", "with line 1 of it: host1:8"),
        ("host1 slots=8\nhost1 slots=8\n", "with line 2 of it: a second host1"),
    ],
)
def test_a_hostfile_that_is_none_is_refused(machine, content, found):
    if content is not None:
        (machine / "h").write_text(content)
    ended = on_hosts(machine, "recipe=demo", HOSTFILE="nothing" if content is None else "h")
    assert ended.returncode == 2
    assert ended.stdout == "", "nothing may be started"
    assert ended.stderr.startswith("hostfile.sh: found ")
    assert found in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_what_the_hostfile_story_needs_is_named(machine):
    assert "found no HOSTFILE" in on_hosts(machine, HOSTFILE="").stderr
    assert "found no MASTER_ADDR" in on_hosts(machine, MASTER_ADDR="").stderr
    (machine / "bin" / "pdsh").unlink()
    tools = machine / "tools"
    tools.mkdir()
    for name in ("bash", "awk", "head", "sed"):
        (tools / name).symlink_to(subprocess.check_output(["which", name], text=True).strip())
    without_pdsh = f"{machine}/bin:{tools}"
    assert "found no pdsh; expected" in on_hosts(machine, "recipe=demo", path=without_pdsh).stderr
    assert on_hosts(machine, "--launcher", "openmpi", "--", "recipe=demo", path=without_pdsh).returncode == 0
    assert "set MASTER_PORT" in on_hosts(machine, "--no_ssh", "--", "recipe=demo", path=without_pdsh).stderr
    blank = machine / "a folder"
    blank.mkdir()
    assert "found the folder" in on_hosts(machine, "a=1", cwd=blank, HOSTFILE=str(machine / "hosts")).stderr


def test_launcher_options_come_before_two_dashes(machine):
    ended = on_hosts(machine, "--include", "host1:0,1@host2", "--ssh_port", "2222", "--", "recipe=demo", "seed=1")
    words = ended.stdout.splitlines()[1:]
    port = words[words.index("--master_port") + 1]
    assert 20_000 <= int(port) < 32_000
    assert words == [
        *(
            "--log_level",
            "warning",
            "--hostfile",
            "hosts",
            "--master_addr",
            "host1",
            "--include",
            "host1:0,1@host2",
            "--ssh_port",
            "2222",
        ),
        *("--master_port", port, "--force_multi", "--module", "bert_lamb", "pretrain", "recipe=demo", "seed=1"),
    ]
    assert on_hosts(machine, "x=1", COMMAND="squad").stdout.endswith("--module\nbert_lamb\nsquad\nx=1\n")
    ports = {on_hosts(machine, "a=1").stdout.split("--master_port\n")[1].split("\n")[0] for _ in range(6)}
    assert len(ports) > 1, "a fixed port would let the ranks of two runs meet"
    assert "--master_port\n24000\n" in on_hosts(machine, "a=1", MASTER_PORT="24000").stdout
    for given in (["--master_port", "25000"], ["--master_port=25000"]):
        assert on_hosts(machine, *given, "--", "a=1").stdout.count("--master_port") == 1
    alone = on_hosts(machine, "--no_ssh", "--node_rank", "1", "--", "a=$HOME", MASTER_PORT="24000").stdout
    assert "--force_multi" not in alone
    assert alone.endswith("a=$HOME\n")
    crlf = machine / "crlf"
    crlf.write_bytes(b"host1 slots=8\r\nhost2 slots=8\r\n")
    assert on_hosts(machine, "a=1", HOSTFILE="crlf").returncode == 0


def test_ssh_notices_a_machine_that_is_gone_and_what_is_set_comes_first(machine):
    install(machine, "deepspeed", '#!/bin/sh\necho "$PDSH_SSH_ARGS_APPEND"\n')
    keeps_alive = "-o ServerAliveInterval=15 -o ServerAliveCountMax=3"
    assert on_hosts(machine, "a=1").stdout == f"{keeps_alive}\n"
    assert on_hosts(machine, "a=1", PDSH_SSH_ARGS_APPEND="-i key").stdout == f"-i key {keeps_alive}\n"


@pytest.mark.parametrize(("status", "is_ended"), [(1, True), (None, False)])
def test_one_machine_that_fails_ends_the_others(machine, status, is_ended):
    said = f"echo 'pdsh@a: host2: ssh exited with exit code {status}' >&2\n" if status else "echo 'host2: x' >&2\n"
    install(machine, "deepspeed", f"#!/bin/bash\ntrap 'exit 7' TERM\n{said}for _ in $(seq 50); do sleep 0.1; done\n")
    ended = on_hosts(machine, "a=1", GRACE_SECONDS="1")
    assert ended.returncode == (7 if is_ended else 0)
    assert ("hostfile.sh: one machine's ranks have failed" in ended.stderr) == is_ended
    assert ended.stderr.startswith("pdsh@a: host2: " if status else "host2: x\n")


def over_pdsh(word):
    """What the launcher and pdsh make of a word, and the remote shell of that."""
    if " " in word:
        word = '"{}"'.format(word.replace('"', '\\"'))
    return word.replace("%%", "%")


@pytest.mark.parametrize(
    "value",
    ["a=$HOME;x", "a=b c", "a=`id` $X", "a=it's", "a=it's so", 'a="q"', 'a="q r"', "a=[0.9,0.99]", "a={b,c}", "a=%h %n",
     "a=\\x", "a=\\ y", "a=*", "a=(b)", "a=#b", "a=ünder", "~a", "a=", "a=b&c|d>e"],
)  # fmt: skip
def test_a_value_reaches_the_other_machines_as_it_was_typed(machine, value):
    word = on_hosts(machine, value).stdout.split("\npretrain\n")[1].removesuffix("\n")
    remote = subprocess.run(["sh", "-c", f"printf %s {over_pdsh(word)}"], capture_output=True, text=True, check=True)
    assert remote.stdout == value


def test_a_value_of_two_lines_is_refused(machine):
    assert "found a line end or tab" in on_hosts(machine, "a=b\nc").stderr


def test_one_machine_starts_a_rank_for_each_gpu(machine):
    ended = call(machine, "one_machine.sh", "recipe=demo", path=f"{machine}/bin:/usr/bin:/bin")
    assert ended.returncode == 2
    assert "found NUM_GPUS=0; expected 1 or more" in ended.stderr
    install(machine, "nvidia-smi", '#!/bin/sh\necho "GPU 0: x"\necho "GPU 1: y"\n')
    words = call(machine, "one_machine.sh", "recipe=demo").stdout
    assert "--nproc-per-node\n2\n" in words
    assert words.endswith("--no-python\nbert-lamb\npretrain\nrecipe=demo\n")
    assert call(machine, "one_machine.sh", "x=1", COMMAND="squad").stdout.endswith("bert-lamb\nsquad\nx=1\n")
    chosen = call(machine, "one_machine.sh", CUDA_VISIBLE_DEVICES="1").stdout
    assert "--nproc-per-node\n1\n" in chosen
    given = call(machine, "one_machine.sh", NUM_GPUS="4", CUDA_VISIBLE_DEVICES="1").stdout
    assert "--nproc-per-node\n4\n" in given
    assert call(machine, "one_machine.sh", NUM_GPUS="all").returncode == 2


@pytest.mark.parametrize(
    ("before", "heard"),
    [
        ("", {"SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGQUIT"}),
        ("trap '' HUP; ", {"SIGTERM", "SIGINT", "SIGUSR1", "SIGQUIT"}),  # nohup
        ("trap '' INT HUP; ", {"SIGTERM", "SIGUSR1", "SIGQUIT"}),
    ],
)
def test_torchrun_does_not_hear_what_is_ignored(machine, before, heard):
    words = call(machine, "one_machine.sh", before=before, NUM_GPUS="2").stdout.splitlines()
    assert set(words[words.index("--signals-to-handle") + 1].split(",")) == heard


SLURM = {"SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JOB_ID": "123456"}
STAND_INS = {
    "scontrol": '#!/bin/bash\n[ "$1" = show ] && printf "n1\\nn2\\n" || echo "scontrol $*" >>"$LOG"\n',
    "scancel": '#!/bin/bash\necho "scancel $*" >>"$LOG"\nkill -USR1 "$(cat "$LOG.srun")"\n',
    # Ends with $STATUS when the ranks are asked, and by itself after $SECONDS_OF_RUN.
    "srun": '#!/bin/bash\necho $$ >"$LOG.srun"\ntrap "exit $STATUS" USR1\n'
    'echo "srun $MASTER_ADDR $MASTER_PORT $*" >>"$LOG"\n'
    "for _ in $(seq $((SECONDS_OF_RUN * 20))); do sleep 0.05; done\nexit $STATUS\n",
}


@pytest.mark.parametrize(
    ("is_asked", "status", "seconds", "requeues"),
    [
        (False, 0, 0, 0),
        (False, 2, 0, 0),  # a mistake
        (False, 143, 0, 0),  # a mistake of one task, for which srun ended the others by SIGTERM
        (False, 137, 0, 0),  # out of memory
        (True, 143, 20, 1),  # saved
        (True, 138, 20, 1),  # heard before it could save anything
        (True, 0, 20, 0),  # had just finished
    ],
)
def test_only_who_was_asked_comes_back_to_the_queue(tmp_path, is_asked, status, seconds, requeues):
    for name, text in STAND_INS.items():
        install(tmp_path, name, text)
    log = tmp_path / "log"
    variables = {"LOG": str(log), "STATUS": str(status), "SECONDS_OF_RUN": str(seconds), **SLURM}
    script = subprocess.Popen(
        ["bash", str(CHECKOUT / "scripts" / "launch" / "slurm.sh"), "recipe=demo"],
        env={"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", **variables},
        stderr=subprocess.PIPE,
        text=True,
    )
    if is_asked:
        until = time.monotonic() + 20
        while not (log.exists() and "srun" in log.read_text()) and time.monotonic() < until:
            time.sleep(0.02)
        script.send_signal(signal.SIGUSR1)
    _, err = script.communicate(timeout=60)
    assert script.returncode == status, err
    said = log.read_text()
    assert said.count("scontrol requeue 123456") == requeues
    assert said.count("scancel --signal=USR1 123456") == is_asked
    port = re.search(r"srun n1 (\d+) --kill-on-bad-exit=1 --cpus-per-task=1 bert-lamb pretrain recipe=demo if_ex", said)
    assert port is not None
    assert int(port[1]) == 20_000 + 123_456 % 12_000


def test_slurm_fine_tunes_when_asked(tmp_path):
    for name, text in STAND_INS.items():
        install(tmp_path, name, text)
    variables = {"LOG": str(tmp_path / "log"), "STATUS": "0", "SECONDS_OF_RUN": "0", "COMMAND": "squad", **SLURM}
    subprocess.run(
        ["bash", str(CHECKOUT / "scripts" / "launch" / "slurm.sh"), "x=1"],
        env={"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", **variables},
        check=True,
        timeout=60,
    )
    assert "bert-lamb squad x=1 if_exists=resume" in (tmp_path / "log").read_text()
