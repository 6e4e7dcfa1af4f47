"""Whether answers that must not be told apart take equally long.

ENUMERATION_PAIRS: how many answers of each kind are compared, one after another and with the pause
that is shipped. Without it, several attackers ask at once, and the pause suits busy machines.
"""

import math
import os
import random
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

Kind = str
Ask = Callable[[Kind], object]

AS_SHIPPED = "ENUMERATION_PAIRS" in os.environ
ANSWERS = int(os.environ.get("ENUMERATION_PAIRS", "60"))
ATTACKERS = 1 if AS_SHIPPED else 4  # they mostly wait
WARM_UP = 2  # answers of each kind for each attacker
TRIES = 3
# Chance alone gives a p below this in one run of a hundred; see `told_apart`.
SUSPICIOUS = 0.01


def told_apart(
    pairs: Sequence[tuple[Kind, Kind]],
    attacker: Callable[[], AbstractContextManager[Ask]],
    answers: int = ANSWERS,
    attackers: int = ATTACKERS,
) -> dict[tuple[Kind, Kind], list[float]]:
    """The pairs of kinds whose times differ, with the p of each try. All kinds are asked together.

    A p of one in a hundred comes up by chance. With new answers chance does so each time for one
    pair in a million, while a difference that is there shows again and again.

    Args:
        attacker: gives each attacker the call that asks for an answer of a kind.
        attackers: how many ask at the same time. One, where they would share this process and wait
            for each other.
    """
    found: dict[tuple[Kind, Kind], list[float]] = {pair: [] for pair in pairs}
    suspicious = list(pairs)
    for _ in range(TRIES):
        kinds = dict.fromkeys(kind for pair in suspicious for kind in pair)
        took = _seconds(list(kinds), attacker, answers, attackers) if kinds else {}
        for one, other in suspicious:
            found[one, other].append(rank_test(took[one], took[other]))
        suspicious = [pair for pair in suspicious if found[pair][-1] <= SUSPICIOUS]
    sys.stdout.writelines(f"{one} and {other}: p = {p}\n" for (one, other), p in found.items())
    return {pair: found[pair] for pair in suspicious}


def _seconds(
    kinds: list[Kind],
    attacker: Callable[[], AbstractContextManager[Ask]],
    answers: int,
    attackers: int,
) -> dict[Kind, list[float]]:
    """How long each answer of each kind took."""
    # In any order: the machine's speed drifts, and what one leaves to be done later falls on the
    # next, which is of any kind, too.
    order = kinds * answers
    random.Random(1).shuffle(order)
    took: dict[Kind, list[float]] = {kind: [] for kind in kinds}

    def attack(share: Iterable[Kind]) -> None:
        with attacker() as ask:
            for kind in kinds * WARM_UP:
                ask(kind)
            for kind in share:
                started = time.perf_counter()
                ask(kind)
                took[kind].append(time.perf_counter() - started)

    with ThreadPoolExecutor(attackers) as pool:
        list(pool.map(attack, [order[n::attackers] for n in range(attackers)]))
    return took


def rank_test(one: list[float], other: list[float]) -> float:
    """p of Mann and Whitney's test: how often chance alone ranks two samples so differently."""
    ranked = sorted(one + other)
    ranks: dict[float, float] = {}
    for place, value in enumerate(ranked, 1):
        ranks.setdefault(value, place + (ranked.count(value) - 1) / 2)
    n, m = len(one), len(other)
    u = sum(ranks[value] for value in one) - n * (n + 1) / 2
    z = (u - n * m / 2) / math.sqrt(n * m * (n + m + 1) / 12)
    return math.erfc(abs(z) / math.sqrt(2))
