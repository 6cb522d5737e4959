"""Whether a figure is the server's, or that of a load which could not do more."""

BUSY = 0.9
"""A load process that uses more of a core cannot be relied on to send or to read in time."""

LATE_SHARE = 0.01
"""A paced load of which more was sent late did not keep to its schedule."""


def why_saturated(load_cpu: float, sent: int, late: int, exhausted: str | None) -> str | None:
    """Say why the load may have set the figure; None where it did not.

    `load_cpu` is the busiest process's share of a core; `late` of `sent` were sent late by the load's own fault;
    `exhausted` is what a process ran out of.
    """
    if exhausted is not None:
        remedy = {
            "descriptors": "raise `ulimit -n`",
            "ports": "give fewer connections, or other addresses to connect to",
        }
        return f"a load process ran out of {exhausted}: {remedy.get(exhausted, 'give it more')}"
    if load_cpu > BUSY:
        return f"the busiest load process used {load_cpu:.0%} of a core: give it more --processes"
    if late > sent * LATE_SHARE:
        return f"{late / sent:.1%} of what was due was sent more than 10 ms late: give it more --processes"
    return None
