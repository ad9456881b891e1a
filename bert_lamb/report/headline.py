"""What the page begins with: where the run stands, and a card for each number that matters most."""

from typing import Any, NamedTuple

from bert_lamb.report.formats import as_duration, as_number, as_percent
from bert_lamb.report.metrics import Phase, Record, Run
from bert_lamb.report.speed import pauses


def status_of(run: Run, planned_steps: dict[str, int | None]) -> Record:
    """Where the run stands, from its lines and its configuration alone, never from a clock.

    planned_steps: phase -> steps, of the configuration (`configuration.planned_steps`). step and total_steps count over
    all phases; total_steps is None where a phase that has not begun does not say its own. seconds: from the start of
    training to the last logged step, evaluation and saving included.
    """
    begun = {phase.name: phase for phase in run.phases}
    last = run.phases[-1]
    to_come = [number for name, number in planned_steps.items() if name not in begun]
    totals = [phase.total_steps for phase in run.phases] + to_come
    is_finished = last.is_at_target or (last.num_steps >= last.total_steps and not to_come)
    return {
        "is_finished": is_finished,
        "is_at_target": last.is_at_target,
        "phase": last.name,
        "step": sum(phase.num_steps for phase in run.phases),
        "total_steps": None if None in totals else sum(number for number in totals if number is not None),
        "seconds": sum(map(elapsed, run.phases)),
    }


def elapsed(phase: Phase) -> float:
    """Seconds up to its last logged step: each line stands for the steps since the line before it."""
    total, before = 0.0, 0
    for step in phase.steps:
        total += (step["step"] - before) * step["seconds"] / (1 - pauses(step))
        before = step["step"]
    return total


def sentence_on(status: Record) -> str:
    """Of an unfinished run."""
    after = f"the last logged step ended {as_duration(status['seconds'])} after the first began"
    return f"Running or stopped at {place_of(status)}, in {status['phase']}; {after}."


def place_of(status: Record) -> str:
    """ "step 80 of 430"."""
    return f"step {status['step']:,}" + ("" if status["total_steps"] is None else f" of {status['total_steps']:,}")


class Card(NamedTuple):
    name: str
    value: str
    about: str
    is_warning: bool = False


def cards_of(content: dict[str, Any], run: Run) -> list[Card]:
    """What matters most, for who looks for a moment. content: as in report.json."""
    cards = [status_card(content["status"])]
    if content["heldout"]:
        last = content["heldout"][-1]
        guess = last["unigram_cross_entropy"]
        beside = "" if guess is None else f"; word frequency {as_number(guess, 3)}"
        cards.append(Card("held-out loss", as_number(last["mlm_loss"], 3), f"nats, after {last['phase']}{beside}"))
    for one in content["scores"]:
        if not one["is_baseline"]:
            about = f"exact match {as_number(one['exact_match'], 2)}; {one['label']}, {one['dataset_name']}"
            cards.append(Card("F1", as_number(one["f1"], 2), about))
    images = [one for phase in run.phases for one in phase.image_scores]
    if images:
        about = f"of {as_number(images[-1]['num_instances'])} test images"
        cards.append(Card("accuracy", as_percent(images[-1]["accuracy"]), about))
    cards += speed_cards(content)
    num_logged = sum(len(phase.steps) for phase in run.phases)
    cards.append(Card("skipped steps", as_number(content["num_skipped_steps"]), f"of {as_number(num_logged)} logged"))
    cards.append(Card("time", as_duration(content["train_seconds"]), "in steps, without evaluation"))
    return cards


def status_card(status: Record) -> Card:
    if status["is_finished"]:
        how = "at its target" if status["is_at_target"] else "all steps done"
        return Card("run", "finished", f"{place_of(status)}, {how}")
    last = f"last line {as_duration(status['seconds'])} after the start"
    return Card("run", "unfinished", f"{place_of(status)}; {last}", is_warning=True)


def speed_cards(content: dict[str, Any]) -> list[Card]:
    """Sequences a second of the whole run, and the share of the machine that it used."""
    cards = []
    rates = [row["sequences_per_second"] for row in content["phases"] if row["sequences_per_second"] is not None]
    if rates:
        each = " and ".join(as_number(rate, 1) for rate in rates)
        value = as_number(content["num_sequences"] / content["train_seconds"], 1)
        cards.append(Card("sequences/s", value, f"{each} by phase" if len(rates) > 1 else "in steps"))
    used = [row for row in content["speed"] if row["mfu"] is not None]
    if used:
        first, *others = used
        peak = "" if first["peak_tflops"] is None else f"of {first['peak_tflops']:,.4g} TFLOP/s, "
        each = "".join(f"; {as_percent(row['mfu'])} in {row['phase']}" for row in others)
        cards.append(Card("MFU", as_percent(first["mfu"]), f"{peak}in {first['phase']}{each}"))
    return cards
