"""`python -m bert_lamb.planner`: fit again, and rewrite efficiencies.json and the tables of README.md."""

import json
from pathlib import Path

from bert_lamb.outputs.atomic import write_atomically
from bert_lamb.planner.calibration import FILE, fit, read_efficiencies
from bert_lamb.planner.comparison import TARGET, compare, forecast, table_of_errors, table_of_stacks
from bert_lamb.planner.published import Efficiencies, read_published

UP_TO_GPUS = 64  # whose rows alone forecast the others
README, BEGIN, END = Path(__file__).with_name("README.md"), "<!-- generated -->", "<!-- end -->"


def text_of(efficiencies: Efficiencies) -> str:
    """efficiencies.json."""
    content = {
        "compute": [
            {"stack": stack, "generation": generation, "efficiency": round(value, 4)}
            for (stack, generation), value in efficiencies.compute.items()
        ],
        "network": {generation: round(value, 4) for generation, value in sorted(efficiencies.network.items())},
    }
    return json.dumps(content, indent=1) + "\n"


def generated_text() -> str:
    """What README.md has between its two marks."""
    efficiencies, rows = read_efficiencies(), read_published()
    compared, larger = compare(rows, efficiencies), forecast(rows, up_to_gpus=UP_TO_GPUS)
    worst = max(larger, key=lambda one: abs(one.error))
    median = sorted(abs(one.error) for one in larger)[len(larger) // 2]
    network = ", ".join(f"{generation} {value:.3f}" for generation, value in efficiencies.network.items())
    within = sum(one.is_within for one in compared)
    said = f"{within} of {len(compared)} rows are within {100 * TARGET:.0f} %; those beyond have two stars."
    said_of_larger = (
        f"Forecast: fitted to the rows of up to {UP_TO_GPUS} GPUs alone, {sum(one.is_within for one in larger)} of"
        f" {len(larger)} larger rows are within {100 * TARGET:.0f} %; the median error is {100 * median:.1f} %, the"
        f" largest {100 * worst.error:+.0f} % ({worst.row.name})."
    )
    tables = table_of_stacks(compared, efficiencies), table_of_errors(compared)
    return "\n".join(
        [*tables[0], "", f"Network efficiencies: {network}.", "", said, "", said_of_larger, "", *tables[1]]
    )


def with_generated(page: str) -> str:
    """The page with its generated part as it should be."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n{generated_text()}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    write_atomically(FILE, text_of(fit(read_published())))
    write_atomically(README, with_generated(README.read_text()))
