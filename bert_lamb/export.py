"""`bert-lamb export`: a checkpoint -> a folder that `transformers` loads, with tokenizer and model card."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import BertConfig, BertForPreTraining, BertTokenizer
from transformers.utils.logging import disable_progress_bar

from bert_lamb import __version__
from bert_lamb.engine.checkpoint import Checkpoint
from bert_lamb.errors import UserError
from bert_lamb.model.bert import bert_config
from bert_lamb.run_dir import CONFIG_FILE, OUTCOME_FILE, VOCABULARY_FILE, RunDir

ORIGIN_FILE = "bert_lamb_export.json"  # which checkpoint of which run
PREFIX = "bert."  # BertPretrainingModel holds transformers' model under this name
VOCABULARY_ROWS = ("embeddings.word_embeddings.weight", "predictions.bias", "decoder.weight", "decoder.bias")


def export(*, run_dir: Path, checkpoint: str, output_dir: Path, if_exists: str) -> None:
    """Write weights (fp32), configuration, tokenizer and a model card.

    The rows that pad the vocabulary for training are cut off, so that model and tokenizer agree.
    checkpoint: `latest` or a folder name under run_dir/checkpoints. Raises UserError when there is none, or when
    output_dir holds something else (see config.IfExists).
    """
    folder = RunDir(run_dir).checkpoint(checkpoint)
    source = Checkpoint(folder)
    origin = {"run_outcome": json.loads((run_dir / OUTCOME_FILE).read_text()), "checkpoint": folder.name}
    if not _make_room(output_dir, origin, if_exists):
        print(f"{output_dir} holds {folder.name} already")
        return
    config_file = run_dir / CONFIG_FILE
    model_sizes: dict[str, Any] = yaml.safe_load(config_file.read_text())["model"]
    model_sizes["vocab_size_multiple"] = 1
    vocabulary = source.meta["vocabulary"]
    config = bert_config(vocab_size=vocabulary["size"], pad_token_id=vocabulary["pad_id"], **model_sizes)
    model = to_transformers(source, config)

    partial = output_dir.with_name(output_dir.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    disable_progress_bar()  # of the writing, which takes a second
    model.save_pretrained(partial)
    shutil.copyfile(run_dir / VOCABULARY_FILE, partial / "vocab.txt")
    tokenizer = BertTokenizer(
        vocab=str(partial / "vocab.txt"),
        do_lower_case=vocabulary["is_lowercase"],
        model_max_length=config.max_position_embeddings,
    )
    tokenizer.save_pretrained(partial)
    (partial / ORIGIN_FILE).write_text(json.dumps(origin, indent=1) + "\n")
    (partial / "README.md").write_text(_card(source, config, run_dir), encoding="utf-8")
    partial.rename(output_dir)
    print(f"exported {folder.name} to {output_dir}")


def to_transformers(source: Checkpoint, config: BertConfig) -> BertForPreTraining:
    """The checkpoint's weights in transformers' model, vocabulary padding cut off."""
    weights = {name.removeprefix(PREFIX): weight for name, weight in source.weights()}
    for name, weight in weights.items():
        if name.endswith(VOCABULARY_ROWS):
            weights[name] = weight[: config.vocab_size].clone()
    model = BertForPreTraining._from_config(config)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    tied = set(model.all_tied_weights_keys)
    unmatched = sorted(set(missing) - tied) + list(unexpected)
    if unmatched:
        raise UserError(
            found=f"parameters {unmatched} that do not match in {source.directory}",
            expected="the parameters of BertForPreTraining",
            fix="use the version of bert_lamb that wrote the checkpoint",
        )
    model.tie_weights()
    return model.to(torch.float32).eval()


def _make_room(output_dir: Path, origin: dict[str, Any], if_exists: str) -> bool:
    """Whether there is something to do; an export of the same checkpoint is kept with if_exists=resume."""
    if not output_dir.exists():
        return True
    origin_file = output_dir / ORIGIN_FILE
    found = json.loads(origin_file.read_text()) if origin_file.exists() else None
    if if_exists == "resume" and found == origin:
        return False
    if if_exists != "restart" or found is None:
        what = "a folder that is no export" if found is None else f"an export of {found['checkpoint']} of some run"
        raise UserError(
            found=f"{what} at {output_dir}",
            expected=f"nothing there, or with if_exists=resume an export of {origin['checkpoint']} of this run",
            fix="set output_dir, or if_exists=restart to replace an export",
        )
    shutil.rmtree(output_dir)
    return True


def _card(source: Checkpoint, config: BertConfig, run_dir: Path) -> str:
    position = source.position
    casing = "lower-cased" if source.meta["vocabulary"]["is_lowercase"] else "cased"
    return f"""---
library_name: transformers
pipeline_tag: fill-mask
---
# BERT pretrained with bert_lamb {__version__}

| | |
|---|---|
| layers, hidden size, heads | {config.num_hidden_layers}, {config.hidden_size}, {config.num_attention_heads} |
| vocabulary | {config.vocab_size} WordPieces, {casing} |
| checkpoint | after step {position.step:,} of {position.phase} ({source.meta["total_step"]:,} steps in all) |

The configuration of the run (optimizer, phases, data):

```yaml
{(run_dir / CONFIG_FILE).read_text().strip()}
```
"""
