"""Whether the broker of a configuration can be had, for `notifyd check`."""

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from notifyd.settings import BrokerSettings

TRIAL_S = 3.0
"""How long to wait for a broker: through a failover that is under way, and no longer than a person waits."""

TRIAL_POLL_S = 0.02


def try_broker(settings: "BrokerSettings") -> str:
    """Connect to the broker as a node would; return what to tell of it. Raises ConfigurationError where it is away."""
    from notifyd.errors import ConfigurationError

    if settings.url.scheme == "memory":
        return "needs no connection"
    problems = trio.run(_problems_of, settings)
    if problems:
        reason = "; ".join(problem.replace(" is backing off: ", " cannot be reached: ") for problem in problems)
        raise ConfigurationError("configuration", "broker.url", reason)
    return "answers"


async def _problems_of(settings: "BrokerSettings") -> list[str]:
    from notifyd.broker.redis.broker import open_servers
    from notifyd.clock import Clock
    from notifyd.events import NoEvents
    from notifyd.supervision import open_branch

    servers = open_servers(settings, "check", NoEvents())
    async with open_branch("check", events=NoEvents(), clock=Clock()) as branch:
        await servers.start(branch)
        with trio.move_on_after(TRIAL_S):
            while servers.problems():  # noqa: ASYNC110 - several parts' states
                await trio.sleep(TRIAL_POLL_S)
        return servers.problems()
