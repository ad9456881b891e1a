"""The model card of an export: what was read, how it was trained, how well, what it is not for."""

import json
from pathlib import Path
from typing import Any

import yaml
from transformers import BertConfig

from bert_lamb.checkpoint.reading import Checkpoint
from bert_lamb.errors import UserError
from bert_lamb.outputs.metrics import error_in
from bert_lamb.outputs.model_card import render_card
from bert_lamb.outputs.read_back import NOT_AS_WRITTEN
from bert_lamb.outputs.run_dir import CONFIG_FILE, METRICS_FILE
from bert_lamb.shards.manifest import Manifest, read_manifest

TEMPLATE = Path(__file__).with_name("model_card.md.j2")
OF_PHASE = ("max_seq_length", "global_batch_size", "total_steps", "peak_lr", "warmup_proportion")


def export_card(source: Checkpoint, config: BertConfig, run_dir: Path) -> str:
    """The README.md of an export. Facts that the run's folder does not have, or not any more, are left out."""
    text = (run_dir / CONFIG_FILE).read_text(encoding="utf-8")
    settings = yaml.safe_load(text)
    return render_card(
        TEMPLATE,
        config=config,
        is_lowercase=source.meta["vocabulary"]["is_lowercase"],
        position=source.position,
        total_step=source.meta["total_step"],
        phases=_phases(settings, source.position.phase),
        optimizer=_mapping(settings.get("optimizer")).get("name"),
        shards=_shards(settings),
        heldout=_heldout(run_dir / METRICS_FILE, source),
        run_config=text.strip(),
    )


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _phases(settings: dict[str, Any], last: str) -> list[dict[str, Any]]:
    """The phases up to the checkpoint's, with their names; none where the configuration does not tell all of it."""
    phases = [{"name": name, **_mapping(phase)} for name, phase in _mapping(settings.get("phases")).items() if phase]
    names = [phase["name"] for phase in phases]
    if last not in names or not all(_is_number(phase.get(name)) for phase in phases for name in OF_PHASE):
        return []
    return phases[: names.index(last) + 1]


def _shards(settings: dict[str, Any]) -> dict[str, Manifest]:
    """Name of the folder -> manifest, for every folder of shards that is still at its place."""
    phases = [_mapping(phase) for phase in _mapping(settings.get("phases")).values()]
    folders = {str(one["shards"]): None for one in (settings, *phases) if one.get("shards")}
    manifests = {}
    for folder in folders:
        try:
            manifests[Path(folder).name] = read_manifest(Path(folder))
        except UserError:
            continue
    return manifests


def _heldout(file: Path, source: Checkpoint) -> dict[str, Any] | None:
    """The last evaluation of the checkpoint's phase that is not after it; metrics.jsonl may be cut short."""
    found = None
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []
    for line in lines:
        try:
            record = _mapping(json.loads(line))
        except NOT_AS_WRITTEN:
            continue
        is_of_phase = record.get("kind") == "heldout" and record.get("phase") == source.position.phase
        if is_of_phase and not error_in("heldout", record) and _is_number(record.get("step")):
            found = record if record["step"] <= source.position.step else found
    return found
