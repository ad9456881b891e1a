"""Which runs a study asks for, worked out by hand for small grids.

Breaks that turn this file red are in mutations.txt.
"""

from bert_lamb.study.definition import variants_of
from bert_lamb.study.grid import Cell, Variant, all_cells, chosen, known_cells, later_words_win

PLAIN = Variant("plain", ("optimizer=lamb",), (8, 4))
AT_4 = Variant("scaled", (), (8, 4), tune=(("scaling_base_lr", ("1e-2", "2e-2")),), tune_at=4)
EACH = Variant("each", (), (8,), tune=(("phases.*.peak_lr", ("1", "2")), ("phases.*.warmup_proportion", ("0", "0.5"))))


def names(variants, results=(), seeds=(1, 2)):
    losses = {name: {"heldout_loss": loss} for name, loss in dict(results).items()}
    return [cell.name for cell in known_cells(variants, list(seeds), losses)]


def test_the_first_seed_comes_first_and_batches_as_they_are_listed():
    assert names([PLAIN]) == ["plain-b8-s1", "plain-b4-s1", "plain-b8-s2", "plain-b4-s2"]


def test_what_is_tuned_at_one_batch_runs_there_first_and_its_best_everywhere():
    trials = ["scaled-scaling_base_lr_1e-2-b4-s1", "scaled-scaling_base_lr_2e-2-b4-s1"]
    assert names([AT_4]) == trials
    assert names([AT_4], {trials[0]: 3.0}) == trials  # one of two: nothing is known yet
    rest = [f"scaled-scaling_base_lr_2e-2-{where}" for where in ("b8-s1", "b8-s2", "b4-s2")]
    assert names([AT_4], {trials[0]: 3.0, trials[1]: 2.0}) == trials + rest
    assert names([AT_4], {trials[0]: None, trials[1]: 9.0}) == trials + rest  # of two, one diverged
    assert names([AT_4], {trials[0]: None, trials[1]: None}) == trials  # nothing to go on with


def test_what_is_tuned_at_each_batch_runs_every_combination_and_other_seeds_its_best():
    trials = [f"each-peak_lr_{lr}-warmup_proportion_{share}-b8-s1" for lr in "12" for share in ("0", "0.5")]
    assert names([EACH]) == trials
    losses = dict(zip(trials, (4.0, 2.0, 2.0, 3.0), strict=True))
    assert names([EACH], losses) == [*trials, "each-peak_lr_1-warmup_proportion_0.5-b8-s2"]  # of equals the first
    assert chosen(EACH, 8, 1, {name: {"heldout_loss": loss} for name, loss in losses.items()}) == ("1", "0.5")


def test_every_cell_that_may_be_asked_for_has_a_name_of_its_own():
    every = [cell.name for cell in all_cells([PLAIN, AT_4, EACH], [1, 2])]
    assert len(every) == len(set(every)) == 4 + 8 + 8
    assert set(names([PLAIN, AT_4, EACH])) <= set(every)


def test_the_words_of_a_cell():
    words = Cell(EACH, ("2", "0.5"), 8, 7).words({"phase1": 100, "phase2": 10})
    assert words == [
        *("phases.phase1.peak_lr=2", "phases.phase2.peak_lr=2"),
        *("phases.phase1.warmup_proportion=0.5", "phases.phase2.warmup_proportion=0.5"),
        *("phases.phase1.global_batch_size=8", "phases.phase1.num_sequences=100", "phases.phase1.total_steps=null"),
        *("phases.phase2.global_batch_size=8", "phases.phase2.num_sequences=10", "phases.phase2.total_steps=null"),
        "seed=7",
    ]
    assert later_words_win(["a=1", "+b.c=2", "a=3", "b.c=4"]) == ["a=3", "b.c=4"]


def test_a_variant_has_the_batches_of_the_study_unless_it_says_its_own():
    one = {"words": ["a=1"], "batches": None, "tune": ["lr=1,2", "w=0.5"], "tune_at": 2}
    study = {"batches": [4, 2], "variants": {"v": one, "w": {**one, "batches": [2]}}}
    first, second = variants_of(study)
    assert first == Variant("v", ("a=1",), (4, 2), (("lr", ("1", "2")), ("w", ("0.5",))), 2)
    assert second.batches == (2,)
