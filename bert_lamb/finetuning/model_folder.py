"""model/ of a finished fine-tuning: weights, tokenizer and model card, as transformers and hubs of models read them."""

import shutil
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from bert_lamb.checkpoint.folder.word_pieces import WordPieces
from bert_lamb.outputs.atomic import PARTIAL_SUFFIX, write_atomically
from bert_lamb.outputs.model_card import render_card, share_files

MODEL_NAME, CARD_NAME = "model", "README.md"
TEMPLATE = Path(__file__).with_name("model_card.md.j2")


def save_model(run_dir: Path, model: PreTrainedModel, tokenizer: WordPieces) -> None:
    """Write model/, which appears whole; one that an interrupted run left is replaced."""
    partial, folder = run_dir / (MODEL_NAME + PARTIAL_SUFFIX), run_dir / MODEL_NAME
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    tokenizer.for_transformers(model_max_length=model.config.max_position_embeddings).save_pretrained(partial)
    share_files(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def write_card(run_dir: Path, result: dict[str, Any], *, summary: str, use: str, pipeline_tag: str) -> None:
    """Write the card of model/, once its scores are known.

    result: what scores.json or glue.json is to hold, with its configuration. use: Python or a command that uses it.
    """
    config = result["config"]
    card = render_card(
        TEMPLATE,
        pipeline_tag=pipeline_tag,
        base=Path(config["model_dir"]).resolve().name,
        is_random=config["initial_weights"] == "random",
        summary=summary,
        use=use,
        num_train_steps=result["num_train_steps"],
        settings={
            name: config[name] for name in ("num_epochs", "global_batch_size", "peak_lr", "max_seq_length", "seed")
        },
        optimizer=config["optimizer"]["name"],
    )
    write_atomically(run_dir / MODEL_NAME / CARD_NAME, card)
