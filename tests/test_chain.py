"""The main job at the size of seconds: text -> shards -> two phases -> export -> question answering -> report.

Every station through the command line, in this process, on text made here. Truths: counts worked out from the text,
transformers' own forward pass for the export, the scorer's definition for the scores.
"""

import json
import random

import pytest
import torch
from transformers import AutoModel, AutoTokenizer, BertForPreTraining

from bert_lamb.checkpoint.reading import Checkpoint
from bert_lamb.cli import main as cli
from bert_lamb.model.bert import BertPretrainingModel, bert_config
from bert_lamb.model.encoder import Execution
from bert_lamb.outputs.run_dir import RunDir

COLOURS = ["red", "green", "blue", "grey", "black", "white", "brown", "pink"]
ANIMALS = ["fox", "hen", "cow", "owl", "rat", "dog", "cat", "bee", "ant", "elk"]
PLACES = ["barn", "wood", "field", "river", "house", "hill"]
SIZES = [
    "phases.phase1.max_seq_length=32",
    "phases.phase1.max_predictions_per_seq=5",
    "phases.phase1.global_batch_size=16",
    "phases.phase1.total_steps=6",
    "phases.phase2.max_seq_length=64",
    "phases.phase2.max_predictions_per_seq=10",
    "phases.phase2.global_batch_size=8",
    "phases.phase2.total_steps=3",
    "runtime.micro_batch_size.phase1=16",
    "runtime.micro_batch_size.phase2=8",
    "model.num_layers=2",
    "model.hidden_size=48",
    "model.num_heads=3",
    "model.intermediate_size=64",
    "model.dropout=0.0",
]


def call(*arguments):
    assert cli.main(list(arguments)) == 0, arguments


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """Run all stations once; returns the folder."""
    root = tmp_path_factory.mktemp("chain")
    make_text(root / "text.txt")
    make_questions(root / "questions.json")
    call(
        "prepare",
        "corpus=text",
        f"sources.text.path={root}/text.txt",
        f"output_dir={root}/shards",
        "vocabulary.train_size=150",
        "max_seq_lengths=[32,64]",
        "heldout_proportion=0.2",
        "num_workers=1",
        "cleaning.min_characters=10",
    )
    call("verify", f"shards_dir={root}/shards")
    call(
        "pretrain",
        "recipe=demo",
        f"shards={root}/shards",
        f"run_dir={root}/run",
        "runtime.engine=torch",
        *SIZES,
        "logging.trust_ratio_interval_steps=2",
    )
    call("export", f"run_dir={root}/run", f"output_dir={root}/export")
    for weights in ("pretrained", "random"):
        call(
            "squad",
            "fine_tuning=demo",
            f"model_dir={root}/export",
            f"initial_weights={weights}",
            f"train_file={root}/questions.json",
            f"eval_file={root}/questions.json",
            f"run_dir={root}/{weights}",
            "num_epochs=40",
            "max_seq_length=40",
            "max_query_length=12",
            "doc_stride=16",
            "global_batch_size=8",
            "runtime.num_threads=1",
            "peak_lr=3e-3",
        )
    call("report", f"run_dir={root}/run", f"+scores.pretrained={root}/pretrained", f"+scores.random={root}/random")
    return root


def make_text(path):
    """150 documents of six short sentences."""
    rng = random.Random(1)
    documents = []
    for _ in range(150):
        sentences = [
            f"The {rng.choice(COLOURS)} {rng.choice(ANIMALS)} sleeps near the {rng.choice(PLACES)}." for _ in range(6)
        ]
        documents.append("\n".join(sentences))
    path.write_text("\n\n".join(documents) + "\n")


def make_questions(path):
    """16 questions whose answers stand in the context once."""
    paragraphs = []
    for number in range(16):
        colour, animal = COLOURS[number % 8], ANIMALS[number % 10]
        context = f"The {colour} {animal} sleeps near the {PLACES[number % 6]}."
        question = {
            "id": f"q{number}",
            "question": f"Which colour has the {animal}?",
            "answers": [{"text": colour, "answer_start": 4}],
        }
        paragraphs.append({"context": context, "qas": [question]})
    path.write_text(json.dumps({"version": "1.1", "data": [{"title": "animals", "paragraphs": paragraphs}]}))


def test_prepare_counts_its_documents(chain):
    manifest = json.loads((chain / "shards" / "manifest.json").read_text())
    documents = manifest["documents"]
    assert documents["num_read"] == 150 == documents["num_train"] + documents["num_heldout"]
    assert {(s["max_seq_length"], s["split"]) for s in manifest["instance_sets"]} == {
        (length, split) for length in (32, 64) for split in ("train", "heldout")
    }


def test_export_has_our_logits(chain):
    """transformers loads the folder; its logits are those of our own module with the checkpoint's weights, to 1e-5."""
    checkpoint = Checkpoint(RunDir(chain / "run").checkpoint("latest"))
    exported = BertForPreTraining.from_pretrained(chain / "export").eval()
    size = len((chain / "shards" / "vocab.txt").read_text().splitlines())
    ours = BertPretrainingModel(
        bert_config(
            vocab_size=size,
            vocab_size_multiple=8,
            num_layers=2,
            hidden_size=48,
            num_heads=3,
            intermediate_size=64,
            dropout=0.0,
            max_position_embeddings=512,
            init_std=0.02,
            pad_token_id=0,
        ),
        seed=0,
        execution=Execution("sdpa"),  # its modules are called by themselves here
    ).eval()
    with torch.no_grad():
        parameters = dict(ours.named_parameters())
        for name, weight in checkpoint.weights():
            parameters[name].copy_(weight)
    ids = torch.randint(5, size, (3, 20), generator=torch.Generator().manual_seed(0))
    types = (torch.arange(20) > 8).long().repeat(3, 1)
    with torch.no_grad():
        expected = ours.bert(input_ids=ids, token_type_ids=types)
        found = exported(input_ids=ids, token_type_ids=types)
    assert exported.config.vocab_size == size
    torch.testing.assert_close(found.prediction_logits, expected.prediction_logits[..., :size], atol=1e-5, rtol=0)
    torch.testing.assert_close(found.seq_relationship_logits, expected.seq_relationship_logits, atol=1e-5, rtol=0)


def test_transformers_loads_the_export(chain):
    tokenizer = AutoTokenizer.from_pretrained(chain / "export")
    encoder = AutoModel.from_pretrained(chain / "export")
    assert len(tokenizer) == encoder.config.vocab_size
    encoded = tokenizer("The red fox sleeps.", "Near the barn.")
    assert encoded["token_type_ids"][-1] == 1
    assert tokenizer.decode(encoded["input_ids"]) == "[CLS] the red fox sleeps. [SEP] near the barn. [SEP]"


def test_an_export_is_replaced_only_when_asked(chain, capsys):
    arguments = ["export", f"run_dir={chain}/run", f"output_dir={chain}/export"]
    assert cli.main(arguments) == 2
    assert "found an export at" in capsys.readouterr().err
    before = (chain / "export" / "model.safetensors").stat().st_mtime_ns
    call(*arguments, "if_exists=resume")
    assert (chain / "export" / "model.safetensors").stat().st_mtime_ns == before
    assert cli.main([*arguments, "if_exists=resume", "checkpoint=phase1-0000006"]) == 2
    assert "checkpoint=phase2-0000003; expected checkpoint=phase1-0000006" in capsys.readouterr().err
    assert cli.main([*arguments[:2], f"output_dir={chain}/shards", "if_exists=restart"]) == 2
    assert (chain / "shards" / "manifest.json").exists()


def test_questions_are_learnt_by_heart(chain):
    """40 epochs over the sixteen questions that are also asked."""
    scores = json.loads((chain / "pretrained" / "scores.json").read_text())
    predictions = json.loads((chain / "pretrained" / "predictions.json").read_text())
    assert scores["exact_match"] == 100 * sum(predictions[f"q{n}"] == COLOURS[n % 8] for n in range(16)) / 16
    assert scores["exact_match"] > 90
    assert scores["dataset_name"] == "World Factbook template questions"


def test_report_brings_it_together(chain):
    report = json.loads((chain / "run" / "report.json").read_text())
    text = json.dumps(report)
    metrics = [json.loads(line) for line in (chain / "run" / "metrics.jsonl").read_text().splitlines()]
    last = [record for record in metrics if record["kind"] == "heldout"][-1]
    assert str(last["unigram_cross_entropy"])[:8] in text
    assert "pretrained" in text
    assert "random" in text
    html = (chain / "run" / "report.html").read_text()
    assert html.count("<svg") >= 5
    assert 'http-equiv="refresh"' not in html
