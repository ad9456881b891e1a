"""Something valid of everything that a command reads, and one call of each command that succeeds on it."""

import contextlib
import io
import json
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from bert_lamb.cli.main import main as bert_lamb
from tests.launch import CHECKOUT
from tests.synthetic import make_shards
from tests.tiny_bert import PEOPLE, PLACES, make_tokenizer, save_encoder
from tests.vision.material import write_npz

GOOGLE = CHECKOUT / "tests" / "checkpoint" / "importing" / "google"
TINY = (
    *("recipe=demo", "~phases.phase2", "model.num_layers=1", "model.hidden_size=16", "model.num_heads=2"),
    *("model.intermediate_size=16", "phases.phase1.max_seq_length=16", "phases.phase1.max_predictions_per_seq=3"),
    *("phases.phase1.global_batch_size=4", "phases.phase1.total_steps=2", "evaluation.max_instances=4"),
    *("evaluation.micro_batch_size=4", "logging.trust_ratio_interval_steps=1"),
)
ONE_PROCESS = ("runtime.engine=torch", "runtime.device=cpu", "runtime.precision=fp32", "runtime.peak_tflops=1")
SHORT = ("max_seq_length=24", "global_batch_size=8", "num_epochs=0.5", *ONE_PROCESS)
SQUAD = (*SHORT, "doc_stride=8", "max_query_length=8", "train_file=questions.json", "eval_file=questions.json")
CORPUS = (
    *("vocabulary.file=vocab.txt", "max_seq_lengths=[16]", "num_workers=1", "cleaning.min_characters=1"),
    "heldout_proportion=0.2",
)
SCORED = ("data=questions.json", "predictions=predictions.json")
MNLI = ("task=rte", "model_dir=encoder", "data_dir=glue")

LENET = (
    *("image_model=lenet", "image_size=12", "global_batch_size=8", "num_epochs=0.5", "peak_lr=1e-2"),
    "runtime.micro_batch_size.vision=8",
)

REFERENCE = "undamaged"  # the shards that all jobs with is_remade make


@dataclass(frozen=True)
class Job:
    """A call that succeeds.

    reads: files and folders of the material that it needs. output: what it writes, where it writes anything. sealed:
    patterns of the files that are under a hash: whatever is done to their bytes must be refused. breaks: patterns of
    the files that are worth breaking; all that it reads, where none is given.
    """

    words: tuple[str, ...]
    reads: tuple[str, ...] = ()
    output: str | None = None
    sealed: tuple[str, ...] = ()
    is_end_open: bool = False  # what follows the bytes of a sealed file is read by nobody
    breaks: tuple[str, ...] = ("*",)
    is_remade: bool = False  # what is damaged may be made again, to the same shards as without the damage

    @property
    def command(self) -> str:
        return self.words[0]


def corpus_job(kind: str, path: str, *more: str) -> Job:
    words = ("prepare", f"sources.a.kind={kind}", f"sources.a.path={path}", *CORPUS, *more, "output_dir=out")
    return Job(words, (path, "vocab.txt"), "out")


def pretrain_words(*more: str) -> tuple[str, ...]:
    return ("pretrain", *TINY, *ONE_PROCESS, "shards=shards", *more)


JOBS: dict[str, Job] = {
    "verify": Job(("verify", "shards_dir=shards"), ("shards",), sealed=("*.arrow", "vocab.txt")),
    "inspect": Job(("inspect", "shards_dir=shards", "count=2", "max_seq_length=16"), ("shards",)),
    "pretrain": Job(
        pretrain_words("run_dir=out"),
        ("shards",),
        "out",
        sealed=("seq16/train*.arrow", "seq16/held*.arrow", "vocab.txt"),
    ),
    "study": Job(
        (
            "study",
            *TINY,
            *ONE_PROCESS,
            "shards=shards",
            "run_dir=out",
            "study.batches=[4]",
            "study.variants.lamb.words=[optimizer=lamb]",
            "study.cell=lamb-b4-s1",
        ),
        ("shards",),
        "out",
        breaks=("shards/*",),
    ),
    "plan": Job(
        ("plan", *TINY, *ONE_PROCESS, "planner.gpu=cpu", "planner.gpus=1", "shards=shards", "output=plan.json"),
        ("shards",),
        "plan.json",
        breaks=("shards/manifest.json",),
    ),
    "batch": Job(
        ("batch", "run_dir=run", "step=1"), ("shards", "run"), breaks=("run/config.yaml", "run/metrics.jsonl")
    ),
    "resume": Job(
        pretrain_words("run_dir=run", "if_exists=resume"),
        ("shards", "run"),
        breaks=("run/*",),
    ),
    "continue": Job(
        (
            "pretrain",
            *(word.replace("=demo", "=continue") for word in TINY if not word.startswith(("model.", "~"))),
            *ONE_PROCESS,
            "phases.phase1.warmup_proportion=0",
            "phases.phase1.peak_lr=0.001",
            "shards=shards",
            "initial_weights=export",
            "run_dir=out",
        ),
        ("shards", "export"),
        "out",
        breaks=("export/*",),
    ),
    "doctor": Job(
        (
            "doctor",
            *TINY,
            *ONE_PROCESS,
            "shards=shards",
            "run_dir=out",
            "step=false",
            "output=doctor.json",
            "timeout_seconds=20",
        ),
        ("shards",),
        "doctor.json",
        breaks=("shards/*",),
    ),
    "evaluate": Job(
        ("evaluate", "model_dir=export", "shards=shards", "max_seq_length=16", "max_instances=8", "device=cpu"),
        ("shards", "export"),
    ),
    "evaluate-run": Job(
        ("evaluate", "model_dir=run", "shards=shards", "max_seq_length=16", "max_instances=8", "device=cpu"),
        ("shards", "run"),
        breaks=("run/*",),
        sealed=("checkpoints/*",),
    ),
    "export": Job(("export", "run_dir=run", "output_dir=out"), ("run",), "out", sealed=("checkpoints/*",)),
    "export-again": Job(
        ("export", "run_dir=run", "output_dir=export", "if_exists=resume"),
        ("run", "export"),
        breaks=("export/bert_lamb*",),
    ),
    "push": Job(("push", "model_dir=export", "repo=somebody/model", "dry_run=true"), ("export",)),
    "import-google": Job(
        ("import", "source=google", "output_dir=out"), ("google",), "out", sealed=("*.ckpt.data*",), is_end_open=True
    ),
    "import-torch": Job(
        ("import", "source=torch/weights.pt", "config=torch/config.json", "vocab=vocab.txt", "output_dir=out"),
        ("torch", "vocab.txt"),
        "out",
    ),
    "import-folder": Job(("import", "source=encoder", "output_dir=out"), ("encoder",), "out"),
    "squad": Job(("squad", "model_dir=encoder", *SQUAD, "run_dir=out"), ("encoder", "questions.json"), "out"),
    "squad-again": Job(
        ("squad", "model_dir=encoder", *SQUAD, "run_dir=squad", "if_exists=resume"),
        ("encoder", "questions.json", "squad"),
        breaks=("squad/*",),
    ),
    "ask": Job(
        (
            "ask",
            "model_dir=squad/model",
            "context=context.txt",
            "question=where does anna live",
            *SQUAD[0:1],
            "doc_stride=8",
            "max_query_length=8",
        ),
        ("squad", "context.txt"),
        breaks=("squad/model/*", "context.txt"),
    ),
    "score": Job(("score", *SCORED, "page=page.html"), ("questions.json", "predictions.json"), "page.html"),
    "score-v2": Job(
        ("score", "data=unanswerable.json", "predictions=predictions.json", "na_prob=odds.json", "na_prob_thresh=0.5"),
        ("unanswerable.json", "predictions.json", "odds.json"),
    ),
    "glue": Job(("glue", *MNLI, *SHORT, "run_dir=out"), ("encoder", "glue"), "out", breaks=("glue/*",)),
    "glue-jsonl": Job(
        (
            "glue",
            "task=rte",
            "model_dir=encoder",
            "files.train=rte.jsonl",
            "files.dev=rte.jsonl",
            *SHORT,
            "run_dir=out",
        ),
        ("encoder", "rte.jsonl"),
        "out",
        breaks=("rte.jsonl",),
    ),
    "glue-again": Job(
        ("glue", *MNLI, *SHORT, "run_dir=glue-run", "if_exists=resume"),
        ("encoder", "glue", "glue-run"),
        breaks=("glue-run/*",),
    ),
    "vision": Job(("vision", "data=images.npz", *LENET, *ONE_PROCESS, "run_dir=out"), ("images.npz",), "out"),
    "report": Job(
        ("report", "run_dir=run", "scores.a=squad"),
        ("run", "squad"),
        "run/report.json",
        breaks=("run/*.*", "squad/*.json*"),
    ),
    "prepare-text": corpus_job("text", "text.txt"),
    "prepare-markdown": corpus_job("markdown", "text.md"),
    "prepare-jsonl": corpus_job("jsonl", "text.jsonl"),
    "prepare-parquet": corpus_job("parquet", "text.parquet"),
    "prepare-arrow": corpus_job("arrow", "text.arrow"),
    "prepare-extracted": corpus_job("wikiextractor", "wiki_00"),
    "prepare-mediawiki": corpus_job("mediawiki", "wiki.xml"),
    "prepare-wikitext": corpus_job("wikitext", "wiki.tokens"),
    "prepare-own-vocabulary": Job(
        (
            "prepare",
            "corpus=text",
            "sources.text.path=text.txt",
            "vocabulary.train_size=120",
            *CORPUS[1:],
            "output_dir=out",
        ),
        ("text.txt",),
        "out",
    ),
    "prepare-resumed": Job(
        ("prepare", "corpus=text", "sources.text.path=text.txt", *CORPUS, "output_dir=shared", "if_exists=resume"),
        ("text.txt", "vocab.txt", "shared.partial"),
        "shared",
        breaks=("shared.partial/*",),
        is_remade=True,
    ),
    "merge": Job(
        ("merge", "corpus=text", "sources.text.path=text.txt", *CORPUS, "output_dir=shared"),
        ("text.txt", "vocab.txt", "shared.partial"),
        "shared",
        breaks=("shared.partial/*",),
        is_remade=True,
    ),
    "vocab": Job(
        (
            "vocab",
            "corpus=text",
            "sources.text.path=text.txt",
            "vocabulary.train_size=120",
            "num_workers=1",
            "cleaning.min_characters=1",
            "output_file=out.txt",
        ),
        ("text.txt",),
        "out.txt",
    ),
    "demo-data": Job(("demo-data", "output_dir=text.txt", "if_exists=refuse"), ("text.txt",)),  # refused: no network
}


def make_inputs(folder: Path) -> Path:
    """What is made in milliseconds: shards, questions, corpora, a checkpoint of TensorFlow."""
    folder.mkdir(parents=True, exist_ok=True)
    make_shards(folder / "shards", max_seq_lengths=(16,), num_train=40, num_heldout=10, instances_per_shard=25)
    make_tokenizer(folder)
    _write_questions(folder)
    _write_corpora(folder)
    _write_glue(folder)
    write_npz(folder / "images.npz")
    (folder / "google").mkdir()
    for original in (*GOOGLE.glob("bert_model.ckpt.*"), GOOGLE / "bert_config.json", GOOGLE / "vocab.txt"):
        shutil.copy(original, folder / "google")
    return folder


def make_material(folder: Path) -> Path:
    """Everything that a job reads; takes some seconds."""
    make_inputs(folder)
    save_encoder(folder / "encoder", make_tokenizer(folder))
    _write_torch(folder)
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
        _call(*pretrain_words("run_dir=run"))
        _call("export", "run_dir=run", "output_dir=export")
        _call(*JOBS["squad"].words[:-1], "run_dir=squad")
        _call(*JOBS["glue"].words[:-1], "run_dir=glue-run")
        words = [word for word in JOBS["prepare-resumed"].words if word != "if_exists=resume"]
        _call(*words, "share=0/1")
        _call(*words, f"output_dir={REFERENCE}")
    return folder


def _call(*words: str) -> None:
    status = bert_lamb(words)
    assert status == 0, words


def _write_questions(folder: Path) -> None:
    questions: list[dict[str, object]] = []
    for i, person in enumerate(PEOPLE):
        context = f"{person} lives in {PLACES[i]}"
        answer = {"text": PLACES[i], "answer_start": context.index(PLACES[i])}
        asked = {"id": f"q{i}", "question": f"where does {person} live", "answers": [answer]}
        questions.append({"context": context, "qas": [asked]})
    data = {"version": "1.1", "data": [{"title": "people", "paragraphs": questions}]}
    (folder / "questions.json").write_text(json.dumps(data))
    for number, paragraph in enumerate(questions):
        asked = dict(paragraph["qas"][0], is_impossible=number % 2 == 1)  # type: ignore[index]
        paragraph["qas"] = [asked | ({"answers": []} if number % 2 else {})]
    (folder / "unanswerable.json").write_text(json.dumps({**data, "version": "v2.0"}))
    (folder / "predictions.json").write_text(json.dumps({f"q{i}": place for i, place in enumerate(PLACES)}))
    (folder / "odds.json").write_text(json.dumps({f"q{i}": i / 10 for i in range(len(PLACES))}))
    (folder / "context.txt").write_text("anna lives in paris and bruno lives in london")


def _write_glue(folder: Path) -> None:
    (folder / "glue" / "RTE").mkdir(parents=True)
    rows = [
        (f"{one} lives in {place}", f"where does {one} live", i % 2)
        for i, (one, place) in enumerate(zip(PEOPLE, PLACES, strict=True))
    ]
    labels = ("entailment", "not_entailment")
    lines = [f"{i}\t{first}\t{second}\t{labels[label]}" for i, (first, second, label) in enumerate(rows)]
    for split in ("train", "dev"):
        (folder / "glue" / "RTE" / f"{split}.tsv").write_text(
            "\n".join(["index\tsentence1\tsentence2\tlabel", *lines]) + "\n"
        )
    objects = [{"idx": i, "sentence1": a, "sentence2": b, "label": label} for i, (a, b, label) in enumerate(rows)]
    (folder / "rte.jsonl").write_text("".join(json.dumps(one) + "\n" for one in objects))


def _write_torch(folder: Path) -> None:
    from transformers import BertForPreTraining

    (folder / "torch").mkdir()
    shutil.copy(folder / "encoder" / "config.json", folder / "torch")
    model = BertForPreTraining.from_pretrained(folder / "encoder")
    torch.save({"model": model.state_dict(), "epoch": 1}, folder / "torch" / "weights.pt")


def _write_corpora(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    draws = random.Random(0)
    texts = [
        " ".join(f"{draws.choice(PEOPLE)} lives in {draws.choice(PLACES)}." for _ in range(12)).capitalize()
        for _ in range(24)
    ]
    paragraphs = "\n\n".join(texts) + "\n"
    (folder / "text.txt").write_text(paragraphs)
    (folder / "text.md").write_text(f"# Title\n\n{paragraphs}")
    (folder / "text.jsonl").write_text(
        "".join(json.dumps({"text": text, "id": i}) + "\n" for i, text in enumerate(texts))
    )
    table = pa.table({"text": texts})
    pq.write_table(table, folder / "text.parquet")
    with pa.OSFile(str(folder / "text.arrow"), "wb") as stream, pa.ipc.new_file(stream, table.schema) as file:
        file.write(table)
    extracted = (
        f'<doc id="{i}" url="u?curid={i}" title="T{i}">\nT{i}\n\n{text}\n</doc>\n' for i, text in enumerate(texts)
    )
    (folder / "wiki_00").write_text("".join(extracted))
    pages = "".join(
        f"<page><title>T{i}</title><ns>0</ns><id>{i + 1}</id><revision><id>{i + 100}</id><model>wikitext</model>"
        f"<format>text/x-wiki</format><text>{text}</text></revision></page>\n"
        for i, text in enumerate(texts)
    )
    head = '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="en">\n'
    (folder / "wiki.xml").write_text(f"{head}<siteinfo><dbname>enwiki</dbname></siteinfo>\n{pages}</mediawiki>\n")
    (folder / "wiki.tokens").write_text("".join(f" = T{i} = \n\n {text} \n\n" for i, text in enumerate(texts)))
