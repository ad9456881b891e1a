"""The tables of a study, as Markdown."""

from bert_lamb.study.lines import Line, Point, Study

DASH = "–"  # noqa: RUF001
HEAD = ("variant", "batch", "steps", "peak lr", "held-out loss", "lowest to highest", "runs")


def as_markdown(study: Study) -> str:
    """What was run, the table of losses, and what was tuned over what."""
    phases = ", ".join(f"{number:,} in {name}" for name, number in study.num_sequences.items())
    seeds = ", ".join(map(str, study.seeds))
    told = [
        f"Every run trains on the same number of sequences: {phases}. Held-out masked-LM loss in nats at the end,"
        f" mean of seeds {seeds}."
    ]
    if study.unigram_cross_entropy is not None:
        told.append(f"Guessing by word frequency costs {study.unigram_cross_entropy:.3f}.")
    if not study.is_finished:
        told.append(f"**Unfinished: {study.num_done} of {study.num_known} runs.**")
    blocks = [
        " ".join(told),
        rows_as_markdown(HEAD, loss_rows(study)),
        "\n".join(f"- {one.about}" for one in study.lines),
    ]
    trials = trial_rows(study)
    if trials:
        blocks += [
            f"What was tuned, with seed {study.seeds[0]}; the other seeds run with the best:",
            rows_as_markdown(("variant", "batch", "values", "held-out loss", ""), trials),
        ]
    return "\n\n".join(blocks) + "\n"


def loss_rows(study: Study) -> list[tuple[str, ...]]:
    return [_row(line, point, len(study.seeds)) for line in study.lines for point in line.points]


def _row(line: Line, point: Point, num_seeds: int) -> tuple[str, ...]:
    runs = f"{len(point.losses)} of {num_seeds}" if not point.diverged else f"diverged: {'; '.join(point.diverged)}"
    return (
        line.label,
        f"{point.batch:,}",
        f"{point.num_steps:,}",
        DASH if point.peak_lr is None else f"{point.peak_lr:.3g}",
        DASH if point.mean is None else f"{point.mean:.3f}",
        f"{min(point.losses):.3f} to {max(point.losses):.3f}" if len(point.losses) > 1 else DASH,
        runs,
    )


def trial_rows(study: Study) -> list[tuple[str, ...]]:
    return [
        (
            line.variant.name,
            f"{trial.batch:,}",
            ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in trial.tuned.items()),
            "diverged" if trial.loss is None else f"{trial.loss:.3f}",
            "best" if trial.is_chosen else "",
        )
        for line in study.lines
        for trial in line.trials
    ]


def rows_as_markdown(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """The first column to the left, the others to the right."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *rows])
