"""What is broken when, drawn from a seed: every moment and every strike comes round before any comes again."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from scripts.chaos.moments import MOMENTS, Hold
from scripts.chaos.programs import INTERVAL_STEPS, MACHINES, Machine, Program
from scripts.chaos.strikes import STRIKES

Card = TypeVar("Card")
IN_TRAINING = ("gradient", "update", "line", "write", "note", "publish", "rename", "removal")
IN_EVALUATION = ("evaluation",)
AT_START = ("admission", "metrics", "load")  # where there is a checkpoint
AT_BOUNDARY = ("switch", "finish", "evaluation", "write", "update")
AFTER_TRAINING = ("predictions", "model", "scores")
IN_EXPORT = ("exported", "export_check", "export_rename")
DRAWN = tuple(name for name in STRIKES if name != "left behind")
TURNS = ("pretraining", "fine-tuning", "elastic pretraining", "export", "pretraining", "elastic fine-tuning")
OF_EXPORT = ("kill rank", "stop, kill", "term")


class Deck(Generic[Card]):
    """Cards in a drawn order; shuffled again when all have been dealt."""

    def __init__(self, cards: Sequence[Card], drawn: random.Random) -> None:
        self.cards, self.drawn = list(cards), drawn
        self._left: list[Card] = []

    def deal(self, among: Sequence[Card] | None = None) -> Card:
        """The next card; the next of `among` where not all will do."""
        if not any(among is None or card in among for card in self._left):
            self._left = [*self._left, *self.drawn.sample(self.cards, len(self.cards))]
        card = next(card for card in self._left if among is None or card in among)
        self._left.remove(card)
        return card


@dataclass(frozen=True)
class Blow:
    """One strike at one moment. phase, step: as Hold has them."""

    moment: str
    strike: str
    phase: str
    step: int


@dataclass(frozen=True)
class Course:
    """One run of a program. machine: None where ranks and engine are drawn anew at every start."""

    program: str
    machine: Machine | None
    world_size: int


def courses(drawn: random.Random, machines: Sequence[str]) -> Iterator[Course]:
    """Without end: pretraining and fine-tuning on each machine and elastic in turns, an export now and then."""
    decks = {name: Deck(machines, drawn) for name in ("pretraining", "fine-tuning")}
    while True:
        for program in TURNS:
            kind = program.removeprefix("elastic ")
            if kind == "export":
                yield Course(kind, MACHINES["torch fp32"], 1)
            elif kind != program:
                yield Course(kind, None, 0)
            else:
                machine = MACHINES[decks[kind].deal()]
                yield Course(kind, machine, min(2, machine.max_ranks))


class Blows:
    """Deals blows for one run after the other."""

    def __init__(self, drawn: random.Random) -> None:
        self.drawn = drawn
        self.strikes = Deck(DRAWN, drawn)
        self.training = Deck((*IN_TRAINING, *IN_EVALUATION, *AT_START), drawn)
        self.boundary = Deck(AT_BOUNDARY, drawn)
        self.end = Deck(AFTER_TRAINING, drawn)
        self.export = Deck(IN_EXPORT, drawn)
        self.export_strikes = Deck(OF_EXPORT, drawn)

    def of_run(self, program: Program, *, is_elastic: bool) -> list[Blow]:
        """In the order in which the run comes by. Two or more in each phase, one at its end."""
        if program.name == "export":
            return [Blow(self.export.deal(), self.export_strikes.deal(), "", 0) for _ in range(2)]
        blows: list[Blow] = []
        for phase, total_steps in program.phases.items():
            is_last = phase == list(program.phases)[-1]
            first = self._in_training(program, phase, 1, total_steps // 2, has_checkpoint=bool(blows))
            last = total_steps - INTERVAL_STEPS
            second = self._in_training(program, phase, total_steps // 2 + 1, last, has_checkpoint=True)
            blows += [first, second]
            if is_elastic and phase == "phase1":
                step = INTERVAL_STEPS * (total_steps // INTERVAL_STEPS - 1)
                blows[-1:] = [Blow("write", "left behind", phase, step), Blow("publish", "stop, continue", phase, step)]
            if not is_last:
                blows.append(Blow(self.boundary.deal(), self.strikes.deal(), phase, total_steps))
            elif program.name == "fine-tuning":
                blows.append(Blow(self.end.deal(), self.strikes.deal(), phase, total_steps))
        return [
            replace(blow, strike="kill all") if STRIKES[blow.strike].goes_on and next_one.moment in AT_START else blow
            for blow, next_one in zip(blows, [*blows[1:], blows[0]], strict=True)
        ]

    def _in_training(self, program: Program, phase: str, first: int, last: int, *, has_checkpoint: bool) -> Blow:
        without = set() if has_checkpoint else set(AT_START)
        if program.name == "fine-tuning":
            without |= set(IN_EVALUATION)
        if first < 2 * INTERVAL_STEPS + 1:
            without.add("removal")  # nothing is old yet
        moment = self.training.deal([name for name in self.training.cards if name not in without])
        return Blow(moment, self.strikes.deal(), phase, self.drawn.randint(first, last))


def hold_of(blow: Blow, world_size: int, number: int, drawn: random.Random) -> Hold:
    is_of_rank_0 = MOMENTS[blow.moment].is_of_rank_0
    rank = 0 if is_of_rank_0 else drawn.randrange(world_size)
    if blow.strike == "left behind":
        rank = world_size - 1  # not the one that holds the run's lock
    return Hold(blow.moment, rank, blow.phase, blow.step, number)
