"""`bert-lamb export`: a checkpoint -> a folder that `transformers` loads, with tokenizer and model card."""

import shutil
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import BertConfig, BertForPreTraining, BertTokenizer

from bert_lamb import __version__
from bert_lamb.engine.checkpoint import Checkpoint
from bert_lamb.errors import UserError
from bert_lamb.model.bert import bert_config
from bert_lamb.run_dir import CONFIG_FILE, VOCABULARY_FILE, RunDir

PREFIX = "bert."  # BertPretrainingModel holds transformers' model under this name
VOCABULARY_ROWS = ("embeddings.word_embeddings.weight", "predictions.bias", "decoder.weight", "decoder.bias")


def export(*, run_dir: Path, checkpoint: str, output_dir: Path, if_exists: str) -> None:
    """Write weights (fp32), configuration, tokenizer and a model card.

    The rows that pad the vocabulary for training are cut off, so that model and tokenizer agree.
    checkpoint: `latest` or a folder name under run_dir/checkpoints. Raises UserError when there is none, or when
    output_dir holds something and if_exists is refuse.
    """
    folder = RunDir(run_dir).checkpoint(checkpoint)
    config_file = run_dir / CONFIG_FILE
    source = Checkpoint(folder)
    _make_room(output_dir, if_exists)
    model_sizes: dict[str, Any] = yaml.safe_load(config_file.read_text())["model"]
    model_sizes["vocab_size_multiple"] = 1
    vocabulary = source.meta["vocabulary"]
    config = bert_config(vocab_size=vocabulary["size"], pad_token_id=vocabulary["pad_id"], **model_sizes)
    model = to_transformers(source, config)

    partial = output_dir.with_name(output_dir.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    model.save_pretrained(partial)
    shutil.copyfile(run_dir / VOCABULARY_FILE, partial / "vocab.txt")
    tokenizer = BertTokenizer(
        vocab=str(partial / "vocab.txt"),
        do_lower_case=vocabulary["is_lowercase"],
        model_max_length=config.max_position_embeddings,
    )
    tokenizer.save_pretrained(partial)
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


def _make_room(output_dir: Path, if_exists: str) -> None:
    if not output_dir.exists():
        return
    is_export = (output_dir / "config.json").exists() and (output_dir / "README.md").exists()
    if if_exists == "refuse" or not is_export:
        raise UserError(
            found=f"{'an export' if is_export else 'a folder that is no export'} at {output_dir}",
            expected="nothing there",
            fix="set output_dir, or if_exists=restart to replace an export",
        )
    shutil.rmtree(output_dir)


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
