"""A preparation that is killed, anywhere and as often as one likes, ends in the bytes of one that was not.

Two ways to die, both by SIGKILL: at the n-th change of the file system, for every n, so that no gap between two of them
is left out; and at random moments of a larger run, which also reaches into the middle of writes that Python does not
see. What was finished before is kept, and nothing half-made ever lies under the final name.

Mutations that must turn it red: a file written under its final name, a mark before what it marks, documents removed
with their marks standing, blocks made again, an output deleted in place.
"""

import contextlib
import json
import multiprocessing
import os
import random
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from bert_lamb.outputs.staged import UNFINISHED_MARK, partial_dir_of
from bert_lamb.shards.verify import verify
from data_prep import prepare as stations
from data_prep.prepare import merge, prepare
from data_prep.settings import Cleaning, Settings, Spread
from data_prep.sources import Source
from data_prep.vocab import train_vocabulary

SPAWNER = multiprocessing.get_context("forkserver")  # imports once; a child is there in a few milliseconds
PRELOADED = ["pytest", "matplotlib.pyplot", "pandas", "data_prep.prepare", "bert_lamb.shards.verify"]
SPAWNER.set_forkserver_preload(PRELOADED)
CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir"}  # what the interpreter tells audit hooks
WORDS = ("the", "a", "river", "city", "north", "old", "king", "stone", "bridge", "war", "year", "naïve", "it's")


@dataclass(frozen=True)
class Job:
    """One run in a child process."""

    command: str
    folder: Path  # holds the corpus, and takes the output
    if_exists: str = "resume"
    num_workers: int = 1
    has_card: bool = True  # plots take a second, too long for hundreds of runs
    num_documents: int = 60
    die_at: int | None = None  # the number of the change before which the process kills itself

    @property
    def output(self) -> Path:
        return self.folder / "shards"


def settings_of(job):
    return Settings(
        sources=(
            Source("books", "text", str(job.folder / "a.txt"), max_documents=job.num_documents - 5),
            Source("lines", "jsonl", str(job.folder / "b.jsonl")),
        ),
        vocabulary_file=job.folder / "vocab.txt" if job.command in ("given", "shares") else None,
        vocabulary_train_size=150,
        is_lowercase=True,
        max_seq_lengths=(32, 64) if job.has_card else (32,),
        sentence_task="next_sentence",
        short_seq_prob=0.1,
        random_next_prob=0.5,
        heldout_proportion=0.2,
        cleaning=Cleaning(min_characters=20, duplicates="exact"),
        group_tokens=60 * job.num_documents,
        instances_per_shard=5 * job.num_documents,
        seed=1,
    )


def write_corpus(folder, num_documents):
    rng = random.Random(2)

    def text(number):
        return " ".join(
            " ".join(rng.choices(WORDS, k=rng.randint(3, 14))).capitalize() + f" {number}." for _ in range(20)
        )

    (folder / "a.txt").write_text("\n\n".join(map(text, range(num_documents))), encoding="utf-8")
    (folder / "b.jsonl").write_text("\n".join(json.dumps({"text": text(-n)}) for n in range(num_documents // 4)))


def work(job, changes):
    """What the child does. changes: a shared integer, how many changes it has made to the file system."""
    os.setsid()  # a group of its own, to be killed with its workers
    sys.stdout = sys.stderr = open(job.folder / "log", "a", encoding="utf-8")  # noqa: SIM115
    if not job.has_card:
        stations.write_card = lambda directory, manifest: (directory / "README.md").write_text("card\n")
        # A hundred runs would parse the metadata of eight packages.
        stations.versions = lambda settings: {"all": "1"}

    def count(event, arguments):
        is_write = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if event in CHANGES or (is_write and str(arguments[0]).startswith(str(job.folder))):
            if changes.value == job.die_at:
                # As if in the middle of writing it; a vocabulary that goes to its last place was written before.
                if event == "os.rename" and Path(arguments[0]).is_file() and Path(arguments[1]) != job.output:
                    os.truncate(arguments[0], Path(arguments[0]).stat().st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)
            changes.value += 1

    sys.addaudithook(count)
    settings = settings_of(job)
    spread = Spread(200 * job.num_documents if job.has_card else 8000, job.num_workers)
    if job.command == "vocab":
        train_vocabulary(settings, spread, output_file=job.output, if_exists=job.if_exists)
    elif job.command == "shares":
        for index in range(2):
            share = Spread(spread.partition_bytes, job.num_workers, f"{index}/2")
            prepare(settings, share, output_dir=job.output, if_exists="refuse")
        merge(settings, spread, output_dir=job.output)
    else:
        prepare(settings, spread, output_dir=job.output, if_exists=job.if_exists)


def start(job):
    changes = SPAWNER.Value("q", 0, lock=False)
    child = SPAWNER.Process(target=work, args=(job, changes))
    child.start()
    return child, changes


def run(job):
    """(exit code, number of changes)."""
    child, changes = start(job)
    child.join()
    return child.exitcode, changes.value


def finish(job):
    exit_code, num_changes = run(job)
    assert exit_code == 0, (job, (job.folder / "log").read_text()[-3000:])
    return num_changes


def contents(path):
    if path.is_file():
        return path.read_bytes()
    return {found.relative_to(path).as_posix(): found.read_bytes() for found in path.rglob("*") if found.is_file()}


def left_beside(job):
    known = {"a.txt", "b.jsonl", "vocab.txt", "log", "shards", "shards.json"}  # the last: of a vocabulary
    return sorted(path.name for path in job.folder.iterdir() if path.name not in known)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What comes out undisturbed, by command, in folders with a corpus of 12 documents."""
    outputs = {}

    def make(command):
        if command not in outputs:
            folder = tmp_path_factory.mktemp(command)
            write_corpus(folder, 12)
            if command in ("given", "shares"):
                (folder / "vocab.txt").write_bytes(make("vocab")[0])
            job = Job(command, folder, "refuse", has_card=False, num_documents=12)
            num_changes = finish(job)
            if command != "vocab":
                assert verify(job.output) == []
            assert left_beside(job) == []
            outputs[command] = contents(job.output), num_changes, folder
        return outputs[command]

    return make


def fresh_folder(tmp_path, number, model):
    folder = tmp_path / str(number)
    folder.mkdir()
    for name in ("a.txt", "b.jsonl", "vocab.txt"):
        if (model / name).exists():
            (folder / name).symlink_to(model / name)
    return folder


def same_but_for_paths(found, expected, folder, model):
    """The manifest tells where the text lay; nothing else may."""
    if isinstance(found, bytes):
        return found == expected
    moved = {name: data.replace(str(folder).encode(), str(model).encode()) for name, data in found.items()}
    return moved == expected


@pytest.mark.parametrize(("command", "step"), [("trained", 1), ("shares", 3), ("vocab", 2)])
def test_dead_before_any_change_of_the_file_system(whole, tmp_path, command, step):
    """Before every one of `trained`; the others are nearly the same.

    What is about to be renamed is cut in half before the process dies: a write that broke off.
    """
    expected, num_changes, model = whole(command)
    assert num_changes > 20
    for number in range(0, num_changes, step):
        folder = fresh_folder(tmp_path, number, model)
        job = Job(command, folder, has_card=False, num_documents=12)
        exit_code, _ = run(Job(command, folder, has_card=False, num_documents=12, die_at=number))
        assert exit_code == -signal.SIGKILL
        if job.output.exists():  # complete, at most with the marks that are removed last
            found = contents(job.output)
            if isinstance(found, dict):
                found = {name: data for name, data in found.items() if not name.startswith(UNFINISHED_MARK)}
            assert same_but_for_paths(found, expected, folder, model), number
        finish(job)
        assert same_but_for_paths(contents(job.output), expected, folder, model), number
        if command != "vocab":  # there the folder that it worked in may stay, until the next vocabulary of this name
            assert left_beside(job) == [], number


@pytest.mark.parametrize("is_complete", [True, False])
def test_dead_while_an_old_output_is_deleted(whole, tmp_path, is_complete):
    """restart: whatever is left must be recognized as ours, or the user is told to clear it away by hand."""
    expected, num_changes, model = whole("given")
    number = num_deaths = 0
    while True:
        folder = fresh_folder(tmp_path, number, model)
        old = Job("given", folder, has_card=False, num_documents=12, die_at=None if is_complete else num_changes - 10)
        run(old)
        died, _ = run(Job("given", folder, "restart", has_card=False, num_documents=12, die_at=number))
        assert not job_output_is_half(folder, expected, model)
        if died == 0:
            break
        finish(Job("given", folder, "restart", has_card=False, num_documents=12))
        assert same_but_for_paths(contents(folder / "shards"), expected, folder, model), number
        assert left_beside(old) == [], number
        num_deaths += 1
        number += 1 if number < 14 else 20  # the first changes are the deletion
    assert num_deaths > 14


def job_output_is_half(folder, expected, model):
    """Whether something lies under the final name that its manifest calls complete, and is not."""
    output = folder / "shards"
    if not (output / "manifest.json").is_file() or (output / UNFINISHED_MARK).is_file():
        return False
    return not same_but_for_paths(contents(output), expected, folder, model)


NUM_KILLS = 31
NUM_DOCUMENTS = 360


def final_names(job):
    """Finished files of the unfinished output that no later run need touch, with their time of writing."""
    found = {}
    for folder, _, names in os.walk(partial_dir_of(job.output)):  # which bears that folders vanish meanwhile
        for path in (Path(folder, name) for name in names):
            # The index of a block comes before its text or tokens, the shortest length of a group first: both are made
            # again where what follows is missing.
            is_unit = path.name.endswith((".text.arrow", ".tokens.arrow", "seq64.npy")) or path.parent.name[:3] == "seq"
            if (is_unit and path.suffix != ".partial") or path.name in ("done.json", "vocab.txt"):
                with contextlib.suppress(FileNotFoundError):
                    found[path] = path.stat().st_mtime_ns
    return found


def station_of(job):
    """The last station whose files are there."""
    partial_dir = partial_dir_of(job.output)
    if not partial_dir.exists():
        return "begin"
    if (partial_dir / "README.md").exists() or (partial_dir / "figures").exists():
        return "end"
    for station, pattern in (("shards", "seq*/*.arrow"), ("instances", "instances/*.npy")):
        if any(partial_dir.glob(pattern)):
            return station
    if any(partial_dir.glob("documents/*/*.tokens.arrow")):
        return "tokens"
    return "vocabulary" if (partial_dir / "vocab.txt").exists() else "text"


def test_killed_at_random_moments(tmp_path):
    """At least 30 times, of which some hit two workers; by a number of files so that every station is reached."""
    rng = random.Random(5)
    folder = tmp_path / "corpus"
    folder.mkdir()
    write_corpus(folder, NUM_DOCUMENTS)
    job = Job("trained", folder, num_documents=NUM_DOCUMENTS)
    finish(job)
    assert verify(job.output) == []
    expected = contents(job.output)
    stations_hit = Counter[str]()
    num_kept = num_cycles = 0
    while stations_hit.total() < NUM_KILLS:
        job.output.rename(folder.parent / f"old{num_cycles}")
        num_cycles += 1
        for attempt in range(NUM_KILLS):
            before = final_names(job)
            killed_job = Job("trained", folder, num_workers=1 + (stations_hit.total() % 8 == 3), num_documents=360)
            child, _ = start(killed_job)
            wait_for_files(child, job, rng.choice((0, 1, 2, 4, 8, 12)) if attempt < 16 else 10**9)
            time.sleep(rng.random() * 0.1)
            if child.is_alive():
                station = station_of(job)
                kill_group(child)
            child.join()
            after = final_names(job)
            if child.exitcode == 0:
                break
            assert child.exitcode == -signal.SIGKILL, (folder / "log").read_text()[-3000:]
            stations_hit[station] += 1
            assert not job.output.exists() or job_output_is_whole(job, expected)
            if not (partial_dir_of(job.output) / "README.md").exists():  # else it was about to clear away
                assert before.items() <= after.items()
                num_kept += len(before)
        else:
            finish(job)
        assert contents(job.output) == expected
        assert verify(job.output) == []
        assert not partial_dir_of(job.output).exists()
    assert num_cycles >= 2
    assert num_kept > 200
    assert {"text", "tokens", "instances", "shards", "end"} <= set(stations_hit), stations_hit


def kill_group(child):
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:  # not yet a group of its own
        child.kill()


def wait_for_files(child, job, num_new):
    """Until the child has finished so many files more, or itself."""
    target = len(final_names(job)) + num_new
    while child.is_alive() and len(final_names(job)) < target:
        time.sleep(0.003)


def job_output_is_whole(job, expected):
    return {**contents(job.output), UNFINISHED_MARK: b""} == {**expected, UNFINISHED_MARK: b""}


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_workers_end_with_the_process_that_they_work_for(tmp_path):
    """Killed alone, without its group: no orphan waits for ever or writes into the next run's folder."""
    write_corpus(tmp_path, NUM_DOCUMENTS)
    job = Job("trained", tmp_path, num_workers=2, num_documents=NUM_DOCUMENTS)
    child, _ = start(job)
    wait_for_files(child, job, 4)
    workers = living_of_group(child.pid) - {child.pid}
    assert len(workers) >= 2
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    deadline = time.monotonic() + 10
    while living_of_group(child.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    left = living_of_group(child.pid)
    for process in left:
        os.kill(process, signal.SIGKILL)
    assert not left


def living_of_group(group):
    """Processes of a group that are no zombies: nobody may be there to collect orphans."""
    living = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, process_group, *_ = path.read_text().rpartition(")")[2].split()
            if int(process_group) == group and state != "Z":
                living.add(int(path.parent.name))
    return living
