"""Plays a plan again and prints all that happened: python -m tests.simulation 'Plan(seed=7, …)'."""

import sys

from tests.simulation import plan
from tests.simulation.cluster import simulate

if __name__ == "__main__":
    outcome = simulate(eval(sys.argv[1], vars(plan)))
    print("\n".join(outcome.trace))
    print(outcome, outcome.digest, sep="\n")
