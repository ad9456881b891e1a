"""What an outcome must be: a whole result, or one line for each complaint and nothing that passes for a result."""

import json
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bert_lamb.checkpoint.folder.contents import check_folder
from bert_lamb.checkpoint.reading import Checkpoint
from bert_lamb.errors import UserError
from bert_lamb.shards import read_manifest
from bert_lamb.shards.verify import verify
from tests.fuzz.material import REFERENCE, Job
from tests.fuzz.runner import TIMEOUT, Outcome

LINE = r"bert-lamb {command}: (rank \d+ of \d+ on \S+: )?found .*; expected .*; fix: .*"
MAX_LINE = 3_000
PROGRESS = re.compile(r".*: .*(/s|left|done).*")  # plain lines of bert_lamb/progress.py
PLAN = re.compile(r"(run|machine|recipe|phase\d|fine_tuning|vision) {2,}\S.*| {9}\d.*")  # what a start prints
FINISHED = ("scores.json", "glue.json", "vision.json", "model", "predictions.json", "manifest.json", "report.json")


def faults(
    job: Job, words: tuple[str, ...], outcome: Outcome, folder: Path, material: Path, *, is_sealed: bool
) -> Iterator[str]:
    """What is wrong with an outcome; nothing for one that is as it should be. is_sealed: it had to be refused."""
    text = outcome.stderr + outcome.stdout
    if outcome.status == TIMEOUT:
        yield "does not end"
    elif outcome.status not in (0, 1, 2):
        yield f"status {outcome.status}"
    if "Traceback (most recent call last)" in text:
        yield "traceback: " + text.strip().splitlines()[-1][:200]
        return
    if found := re.search(r"^.*\w*Warning\b.*$", text, re.MULTILINE):
        yield f"a library's warning: {found[0][:200]}"
    if outcome.status == 2 or (outcome.status == 1 and not outcome.stdout.strip()):
        yield from _faults_of_refusal(words, outcome)
    if outcome.status in (1, 2):
        yield from _taken_for_whole(job, folder)
    if outcome.status == 0:
        if is_sealed:
            yield "accepted, though its bytes are under a hash"
        yield from _faults_of_result(job, words, outcome, folder)
        if job.is_remade and words == job.words and _shards_in(folder / "shared") != _shards_in(material / REFERENCE):
            yield "other shards than without the damage, and nothing said"


def _faults_of_refusal(words: tuple[str, ...], outcome: Outcome) -> Iterator[str]:
    lines = [line for line in outcome.stderr.split("\n") if line.strip()]
    complaint = re.compile(LINE.format(command=re.escape(words[0])))
    complaints = [line for line in lines if complaint.fullmatch(line)]
    others = [line for line in lines if not complaint.fullmatch(line)]
    if not complaints:
        yield f"no line of ours: {lines[-1][:200] if lines else 'silence'}"
    elif odd := [line for line in others if not (PROGRESS.fullmatch(line) or PLAN.fullmatch(line))]:
        yield f"a line that is none of ours: {odd[0][:200]}"
    if any(len(line) > MAX_LINE for line in complaints):
        yield f"a line of {max(map(len, complaints))} characters: {complaints[0][:100]}"
    if any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for line in complaints for character in line):
        yield f"control characters in {complaints[0][:100]!r}"


def _taken_for_whole(job: Job, folder: Path) -> Iterator[str]:
    output = folder / (job.output or "out")
    if output.is_file() and job.command != "doctor":  # whose findings are of what failed
        yield f"refused, and {job.output} is there"
    for name in FINISHED:
        if (output / name).exists():
            yield f"refused, and {job.output}/{name} is there"


def _faults_of_result(job: Job, words: tuple[str, ...], outcome: Outcome, folder: Path) -> Iterator[str]:
    given = dict(word.lstrip("+").partition("=")[::2] for word in words)
    output = folder / given.get("output_dir", given.get("run_dir", job.output or "out")).strip("'\"")
    for file in sorted(folder.rglob("*.json*")) if job.command != "prepare" else []:
        if (
            not file.is_symlink()
            and file.is_file()
            and file.suffix in (".json", ".jsonl")
            and file.stat().st_mtime_ns > _begun(folder)
        ):
            yield from _not_json(file)
    if job.command == "score":
        yield from _not_strict(outcome.stdout, "what score prints")
    try:
        if job.command in ("prepare", "merge") and "share" not in given:
            yield from (f"verify of the result: {one}" for one in verify(output))
        if job.command in ("export", "import") and output.is_dir():
            check_folder(output)
        if job.command == "pretrain" and output.is_dir():
            for checkpoint in (output / "checkpoints").glob("*[0-9]"):
                Checkpoint(checkpoint).check_bytes()
    except UserError as error:
        yield f"a result that is refused: {str(error)[:200]}"


def _shards_in(folder: Path) -> list[str]:
    return [shard.sha256 for one in read_manifest(folder).instance_sets for shard in one.shards]


def _begun(folder: Path) -> int:
    return (folder / ".begun").stat().st_mtime_ns


def _not_json(file: Path) -> Iterator[str]:
    for line in (
        [file.read_text(errors="replace")] if file.suffix == ".json" else file.read_text(errors="replace").splitlines()
    ):
        yield from _not_strict(line, file.name)


def _not_strict(text: str, name: str) -> Iterator[str]:
    def refuse(constant: str) -> Any:
        raise ValueError(constant)

    try:
        json.loads(text, parse_constant=refuse)
    except ValueError as error:
        yield f"{name} is no strict json ({error}): {text[:80]!r}"
