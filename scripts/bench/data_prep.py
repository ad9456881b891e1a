"""Megabytes of text a second from raw text to the shards of both phases, station by station, beside other ways.

    python scripts/bench/data_prep.py                       # the embedded corpus, which make demo fetches
    python scripts/bench/data_prep.py --source wikiextractor=wiki/ --vocabulary vocab.txt --out NAME.json
    python scripts/bench/data_prep.py --source ... --memory 10 100 300     # peak memory at three sizes, and no times
    python scripts/bench/data_prep.py --source ... --check-ids             # ids of every line against the library's

The documents of the sources are written to one JSON lines file first, so what is timed is plain text in, shards out.
Each run of ours is the command a user types, in a process of its own. README.md explains the columns.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import wraps
from pathlib import Path
from statistics import median
from typing import Any

from kit import CHECKOUT
from kit.results import write_result
from kit.surroundings import surroundings
from kit.table import Column, number, table

from data_prep import plan, prepare
from data_prep.documents import partition, store
from data_prep.documents.cleaning import clean
from data_prep.documents.sentences import split_sentences
from data_prep.documents.tokenization import SentenceTokenizer
from data_prep.instances import cutting
from data_prep.settings import Cleaning, Settings, Spread
from data_prep.sources import KINDS, Source, read_documents

DEMO = CHECKOUT / "runs" / "demo"
LENGTHS = (128, 512)
PEER_MEGABYTES = 4  # of text for the slow ones; their speed does not depend on how much


@dataclass
class Row:
    """One line of the table. Seconds are medians over the rounds."""

    what: str
    megabytes: float  # of text, in UTF-8
    wall_s: float
    cpu_s: float  # of all processes
    num_workers: int = 1
    num_tokens: int = 0  # of the text, once
    peak_mb: float = 0.0  # of the largest process

    @property
    def mb_per_s(self) -> float:
        return self.megabytes / self.wall_s

    @property
    def mb_per_cpu_s(self) -> float:
        return self.megabytes / self.cpu_s


def documents_of(sources: list[Source]) -> Iterator[str]:
    """The plain texts of the sources, markup off."""
    for source in sources:
        stretches = tuple(KINDS[source.kind].stretches(source, stretch_bytes=10**12))
        for document in read_documents(source, stretches):
            yield clean(document, Cleaning(min_characters=0))[0]


def write_corpus(sources: list[Source], path: Path, megabytes: float) -> float:
    """The first documents of the sources, in turn over again if they do not suffice; megabytes written."""
    written, number = 0, 0
    with path.open("w", encoding="utf-8") as stream:
        while written < megabytes * 1e6:
            before = written
            for text in documents_of(sources):
                stream.write(json.dumps({"text": text, "number": number}, ensure_ascii=False) + "\n")
                written += len(text.encode())
                number += 1
                if written >= megabytes * 1e6:
                    break
            if written == before:
                raise SystemExit("the sources hold no text")
    return written / 1e6


def run(command: list[str]) -> tuple[float, float, float]:
    """Run a command to its end: (wall seconds, processor seconds, peak MB of the largest of its processes)."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{shlex.join(command)} failed:\n{errors}")
    return time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e3


def our_command(corpus: Path, vocabulary: Path, output_dir: Path, num_workers: int) -> list[str]:
    return [
        *(sys.executable, "-m", "bert_lamb", "prepare"),
        *("corpus=text", "sources.text.kind=jsonl", f"sources.text.path={corpus}"),
        f"vocabulary.file={vocabulary}",
        f"output_dir={output_dir}",
        f"num_workers={num_workers}",
        "if_exists=restart",
    ]


def time_ours(corpus: Path, vocabulary: Path, work: Path, megabytes: float, num_workers: int, rounds: int) -> Row:
    samples = [run(our_command(corpus, vocabulary, work / "shards", num_workers)) for _ in range(rounds)]
    wall, cpu, peak = (median(values) for values in zip(*samples, strict=True))
    return Row(f"bert-lamb prepare, both lengths, workers: {num_workers}", megabytes, wall, cpu, num_workers, 0, peak)


def settings_of(corpus: Path, vocabulary: Path) -> Settings:
    """As `our_command` has them."""
    return Settings(
        sources=(Source("text", "jsonl", str(corpus)),),
        vocabulary_file=vocabulary,
        vocabulary_train_size=0,
        is_lowercase=True,
        max_seq_lengths=LENGTHS,
        sentence_task="next_sentence",
        short_seq_prob=0.1,
        random_next_prob=0.5,
        heldout_proportion=0.005,
        cleaning=Cleaning(),
        group_tokens=1_000_000,
        instances_per_shard=65_536,
        seed=12_345,
    )


def time_stations(corpus: Path, vocabulary: Path, work: Path) -> dict[str, float]:
    """Seconds in each station of a run in this process, without those of a station that it waited for."""
    seconds: defaultdict[str, float] = defaultdict(float)
    inner = [0.0]  # for each station that is at work, the innermost last: seconds of others within it

    def timed(holder: Any, name: str, station: str) -> None:
        original: Callable[..., Any] = getattr(holder, name)

        @wraps(original)
        def measure(*arguments: Any, **options: Any) -> Any:
            started = time.perf_counter()
            inner.append(0.0)
            try:
                return original(*arguments, **options)
            finally:
                elapsed = time.perf_counter() - started
                seconds[station] += elapsed - inner.pop()
                inner[-1] += elapsed

        setattr(holder, name, measure)

    def timed_blocks(self: plan.Partition) -> Iterator[Any]:
        blocks = read_blocks(self)
        while True:
            started = time.perf_counter()
            block = next(blocks, None)
            seconds["read"] += time.perf_counter() - started
            if block is None:
                return
            yield block

    read_blocks = plan.Partition.read_blocks
    plan.Partition.read_blocks = timed_blocks  # type: ignore[method-assign]
    timed(partition, "clean", "clean")
    timed(partition, "split_sentences", "sentences")
    timed(SentenceTokenizer, "encode", "tokenise")
    timed(store, "_write", "store tokens")
    timed(cutting, "make_instances", "make instances")
    timed(cutting, "open_group", "open groups")
    timed(cutting, "assemble", "assemble rows")
    timed(cutting, "concatenate", "assemble rows")
    timed(cutting, "write_shard", "write and hash shards")
    timed(prepare, "write_card", "data card")
    timed(prepare, "choose", "choose and group")
    started = time.perf_counter()
    prepare.prepare(
        settings_of(corpus, vocabulary), Spread(4_000_000, 1), output_dir=work / "timed", if_exists="restart"
    )
    seconds["the rest"] = time.perf_counter() - started - sum(seconds.values())
    return dict(seconds)


def time_raw_tokenizers(lines: list[str], tokenizer: SentenceTokenizer, megabytes: float) -> Row:
    """What the library alone takes for ids of the same text: no sentences, no instances, no files."""
    started, cpu = time.perf_counter(), time.process_time()
    encodings = tokenizer.tokenizer.encode_batch_fast(lines, add_special_tokens=False)
    wall, cpu = time.perf_counter() - started, time.process_time() - cpu
    num_tokens = sum(len(encoding) for encoding in encodings)
    return Row("tokenizers, encode_batch_fast, ids only", megabytes, wall, cpu, 1, num_tokens)


def time_map_and_group(corpus: Path, vocabulary: Path, work: Path, megabytes: float) -> Row:
    """transformers' run_mlm.py: datasets.map(tokenize), then group_texts for each length; no sentence pairs."""
    script = Path(__file__).with_name("data_prep_peer.py")
    command = [sys.executable, str(script), str(corpus), str(vocabulary), str(work / "peer"), *map(str, LENGTHS)]
    wall, cpu, peak = run(command)
    return Row("datasets.map + group_texts, both lengths", megabytes, wall, cpu, 1, 0, peak)


def time_external(command: str, corpus: Path, work: Path, megabytes: float) -> Row:
    """Another script, on text as those of Google and NVIDIA take it; splitting into sentences is not timed.

    The text has a sentence on each line, and an empty line between documents.
    """
    documents = (json.loads(row)["text"] for row in corpus.open(encoding="utf-8"))
    text = "\n\n".join("\n".join(split_sentences(document)) for document in documents)
    (work / "sentences.txt").write_text(text, encoding="utf-8")
    wall, cpu, peak = run(shlex.split(command.format(text=work / "sentences.txt", output=work / "external")))
    return Row(f"external: {Path(shlex.split(command)[1]).name}", megabytes, wall, cpu, 1, 0, peak)


def check_ids(sources: list[Source], tokenizer: SentenceTokenizer) -> tuple[int, int]:
    """(lines, those whose ids differ from one call of the library); all of the sources."""
    num_lines = num_differing = 0
    for text in documents_of(sources):
        lines = text.splitlines()
        ours = tokenizer.encode(lines)
        stop = 0
        encodings = tokenizer.tokenizer.encode_batch_fast(lines, add_special_tokens=False)
        for length, encoding in zip(ours.lengths.tolist(), encodings, strict=True):
            start, stop = stop, stop + length
            num_lines += 1
            num_differing += ours.input_ids[start:stop].tolist() != encoding.ids
    return num_lines, num_differing


def bytes_a_token(shards: Path) -> dict[str, float]:
    """Size on disk of each set over its tokens, special ones included."""
    manifest = json.loads((shards / "manifest.json").read_text())
    return {
        f"{found['split']} {found['max_seq_length']}": sum(shard["num_bytes"] for shard in found["shards"])
        / found["num_tokens"]
        for found in manifest["instance_sets"]
    }


def time_extraction(dump: Path) -> Row:
    """A MediaWiki dump to plain text, one process."""
    started, cpu = time.perf_counter(), time.process_time()
    num_bytes = sum(len(text.encode()) for text in documents_of([Source("dump", "mediawiki", str(dump))]))
    return Row(
        "extraction of a dump: XML and markup to text", num_bytes / 1e6, time.perf_counter() - started,
        time.process_time() - cpu,
    )  # fmt: skip


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", action="append", metavar="KIND=PATH", help="as in conf; may be given again")
    parser.add_argument("--vocabulary", type=Path, help="a vocab.txt; the demo's by default")
    parser.add_argument("--dump", type=Path, help="a MediaWiki dump whose extraction is timed")
    parser.add_argument("--megabytes", type=float, default=20.0, help="of text")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--external", help="a command to time too; {text} is a file of one sentence a line")
    parser.add_argument(
        "--memory", type=float, nargs="+", metavar="MB", help="peak memory at these sizes, and no times"
    )
    parser.add_argument("--check-ids", action="store_true", help="compare all ids with the library's, and no times")
    parser.add_argument("--out", type=Path, help="results as JSON")
    settings = parser.parse_args(arguments)
    settings.source = settings.source or [f"jsonl={DEMO}/data/factbook.jsonl", f"text={DEMO}/data/bible.txt"]
    settings.vocabulary = settings.vocabulary or DEMO / "shards" / "vocab.txt"
    return settings


def main(arguments: list[str] | None = None) -> int:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    settings = parse(arguments)
    sources = [Source(f"s{n}", *found.split("=", 1)) for n, found in enumerate(settings.source)]
    tokenizer = SentenceTokenizer(settings.vocabulary, is_lowercase=True)
    if settings.check_ids:
        num_lines, num_differing = check_ids(sources, tokenizer)
        print(f"{num_lines:,} lines, {num_differing:,} with other ids than the library's")
        return 1 if num_differing else 0
    results: dict[str, Any] = {"load_average": os.getloadavg()}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if settings.memory:
            results["memory"] = measure_memory(sources, settings, work)
        else:
            results |= measure(sources, settings, tokenizer, work)
    if settings.out:
        about = surroundings(
            settings, packages=("tokenizers", "sentencex", "pyarrow", "numpy", "datasets", "transformers")
        )
        write_result(settings.out, {**about, **results})
    return 0


def measure(
    sources: list[Source], settings: argparse.Namespace, tokenizer: SentenceTokenizer, work: Path
) -> dict[str, Any]:
    """All rows, and the table."""
    corpus, small = work / "corpus.jsonl", work / "small.jsonl"
    megabytes = write_corpus(sources, corpus, settings.megabytes)
    small_megabytes = write_corpus(sources, small, min(PEER_MEGABYTES, settings.megabytes))
    lines = [line for row in small.open() for line in json.loads(row)["text"].splitlines()]
    rows = [time_raw_tokenizers(lines, tokenizer, small_megabytes)]
    rows += [
        time_ours(corpus, settings.vocabulary, work, megabytes, num_workers, settings.rounds)
        for num_workers in settings.workers
    ]
    num_bytes = bytes_a_token(work / "shards")
    rows.append(time_map_and_group(small, settings.vocabulary, work, small_megabytes))
    if settings.external:
        rows.append(time_external(settings.external, small, work, small_megabytes))
    if settings.dump:
        rows.append(time_extraction(settings.dump))
    stations = time_stations(corpus, settings.vocabulary, work)
    print(f"\n{station_table(stations)}")
    print("\nbytes a token on disk: " + ", ".join(f"{name} {value:.3f}" for name, value in num_bytes.items()))
    print(f"\n{row_table(rows)}")
    ours = {row.num_workers: row for row in rows if row.what.startswith("bert-lamb")}
    for row in rows:
        if 1 in ours and row.what.startswith("external"):
            print(f"1 worker / {row.what.split(': ')[1]}: {ours[1].mb_per_cpu_s / row.mb_per_cpu_s:.1f} in MB/cpu s")
    if {1, 2} <= ours.keys():
        print(f"2 workers / 1 worker: {ours[1].wall_s / ours[2].wall_s:.2f} in wall time")
    return {"rows": [asdict(row) for row in rows], "stations": stations, "bytes_a_token": num_bytes}


def station_table(stations: dict[str, float]) -> str:
    """The stations of a run by their seconds, the longest first."""
    total = sum(stations.values())
    columns = (
        Column("station", lambda station: station[0], is_text=True),
        Column("s", lambda station: number(station[1], ".2f")),
        Column("share", lambda station: number(station[1] / total, ".1%")),
    )
    return table(columns, sorted(stations.items(), key=lambda station: -station[1]))


def row_table(rows: list[Row]) -> str:
    """The rows; the first, the tokenizer alone, is what the others are compared with."""
    raw = rows[0]
    tokens_per_mb = raw.num_tokens / raw.megabytes
    columns = (
        Column("what", lambda row: row.what, is_text=True),
        Column("MB", lambda row: number(row.megabytes, ".1f")),
        Column("wall s", lambda row: number(row.wall_s, ".2f")),
        Column("cpu s", lambda row: number(row.cpu_s, ".2f")),
        Column("MB/s", lambda row: number(row.mb_per_s, ".2f")),
        Column("MB/cpu s", lambda row: number(row.mb_per_cpu_s, ".2f")),
        Column("ktok/cpu s", lambda row: number(row.mb_per_cpu_s * tokens_per_mb / 1e3, ".0f")),
        Column("peak MB", lambda row: number(row.peak_mb or None, ".0f")),
        Column("of raw", lambda row: number(row.mb_per_cpu_s / raw.mb_per_cpu_s, ".2f")),
    )
    return table(columns, rows)


MEMORY_COLUMNS = (
    Column("MB of text", lambda found: number(found["megabytes"], ".1f")),
    Column("workers", lambda found: number(found["num_workers"], "d")),
    Column("peak MB", lambda found: number(found["peak_mb"], ".0f")),
    Column("wall s", lambda found: number(found["wall_s"], ".1f")),
)


def measure_memory(sources: list[Source], settings: argparse.Namespace, work: Path) -> list[dict[str, float]]:
    """Peak memory of the largest process, at each size and number of workers, and the table."""
    found: list[dict[str, float]] = []
    for size in settings.memory:
        megabytes = write_corpus(sources, work / "corpus.jsonl", size)
        for num_workers in settings.workers:
            command = our_command(work / "corpus.jsonl", settings.vocabulary, work / "shards", num_workers)
            wall, _, peak = run(command)
            found.append({"megabytes": megabytes, "num_workers": num_workers, "peak_mb": peak, "wall_s": wall})
            print(f"{megabytes:.1f} MB, workers: {num_workers}: peak {peak:.0f} MB", file=sys.stderr, flush=True)
    print(table(MEMORY_COLUMNS, found))
    return found


if __name__ == "__main__":
    sys.exit(main())
