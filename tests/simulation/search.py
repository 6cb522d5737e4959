"""Finds a plan that is sharp for a mutation, and leaves out what it does not need; it is kept in sharp_plans.py.

    python -m tests.simulation.search 'forget the key' takeovers     # the mutation, and what incidents are about

A plan that is sharp is whole by itself, and falls to the mutation. The best does so with every seed: what falls by a
stroke of luck stops doing so with the next change of the product.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from random import Random
from typing import Any

from hypothesis import Phase, find, given, settings
from hypothesis import seed as seeded

from tests.simulation.cluster import simulate
from tests.simulation.mutations import MUTATIONS
from tests.simulation.plan import Plan, Publish, plans

MOST_PLANS = 5_000
OTHER_SEEDS = 10


class Caught(Exception):
    """A simulation has found something."""


def is_caught(plan: Plan, patch: Callable[[], Any]) -> bool:
    """Tell whether a plan falls to a mutation, and is whole without it."""
    return bool(simulate(plan, patch).broken) and not simulate(plan).broken


def plans_until_caught(patch: Callable[[], Any], most: int) -> int | None:
    """Play drawn plans until a mutation is caught; return how many that took, None when none caught it."""
    tries = 0

    @seeded(0)
    @given(plans())
    @settings(max_examples=most, deadline=None, database=None, phases=[Phase.generate])
    def search(plan: Plan) -> None:
        nonlocal tries
        tries += 1
        if is_caught(plan, patch):
            raise Caught

    try:
        search()
    except Caught:
        return tries
    return None


def sharp_plan(patch: Callable[[], Any], *themes: str) -> Plan:
    """Find a short plan that is sharp. Raises hypothesis.errors.NoSuchExample."""

    def is_sharp(plan: Plan) -> bool:
        return is_caught(plan, patch)

    once = settings(max_examples=MOST_PLANS, deadline=None, database=None, phases=[Phase.generate])
    plan = find(plans(*themes), is_sharp, settings=once, random=Random(0))
    while shorter := next(filter(is_sharp, _shorter(plan)), None):
        plan = shorter
    return plan


def _shorter(plan: Plan) -> Iterator[Plan]:
    """Leave out one thing."""
    for name in ("steps", "clients", "skews_s"):
        parts = getattr(plan, name)
        for place in range(len(parts)):
            if name == "steps" or len(parts) > 1:
                yield replace(plan, **{name: (*parts[:place], *parts[place + 1 :])})
    for place, step in enumerate(plan.steps):
        if isinstance(step, Publish) and step.count > 1:
            yield _with(plan, "steps", place, replace(step, count=step.count - 1))
    for place, client in enumerate(plan.clients):
        for topic in client.topics if len(client.topics) > 1 else ():
            rest = tuple(other for other in client.topics if other != topic)
            yield _with(plan, "clients", place, replace(client, topics=rest))


def _with(plan: Plan, name: str, place: int, part: Any) -> Plan:
    parts = getattr(plan, name)
    return replace(plan, **{name: (*parts[:place], part, *parts[place + 1 :])})


def main(name: str, *themes: str) -> None:
    """Print a plan for a mutation, and with how many other seeds it is as sharp."""
    plan = sharp_plan(MUTATIONS[name], *themes)
    others = sum(is_caught(replace(plan, seed=seed), MUTATIONS[name]) for seed in range(OTHER_SEEDS))
    print(plan, f"sharp with {others} of {OTHER_SEEDS} other seeds", sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
