"""The configuration centre: the settings in force, and how they change on every node while it runs.

What file, environment and flags give stays below; the centre's overlay is one document for the whole cluster, laid over
it on each node. A change is a merge patch of that document. Source: spec/configuration.md.
"""

from collections.abc import Callable, Mapping
from typing import Any

from notifyd.auth.verification_keys import load_keys
from notifyd.broker.base import VERSIONS_KEPT, Broker, ConfigurationVersion
from notifyd.clock import Clock
from notifyd.errors import BrokerUnavailable, ConfigurationError, NotifydError
from notifyd.events import Events
from notifyd.settings import Layers, Settings
from notifyd.settings.overlay import CENTRE, check_overlay, patched

ATTEMPTS = 10
"""A change without a version is made anew where others come between; so many in a row are no accident."""

_NOTHING = ConfigurationVersion(version=0, time=0, author="", overlay={})


class NotNewest(NotifydError):
    """A change was meant for a version that is not the newest; `newest` is."""

    def __init__(self, newest: int) -> None:
        super().__init__(f"version {newest} is the newest")
        self.newest = newest


class UnknownVersion(NotifydError):
    """There is no such version to go back to, or no more."""


class Centre:
    """The configuration of one node. `take_over` lets settings hold; it raises ConfigurationError before it begins.

    `applied` is the version in force here and `newest` the newest there is; where they differ `problem` tells why.
    """

    def __init__(
        self,
        layers: Layers,
        broker: Broker,
        take_over: Callable[[Settings], list[str]],
        *,
        clock: Clock,
        events: Events,
    ) -> None:
        self.applied = self.newest = _NOTHING
        self.problem: str | None = None
        self._layers = layers
        self._broker = broker
        self._take_over = take_over
        self._clock = clock
        self._events = events

    @property
    def is_stored(self) -> bool:
        """Whether changes outlive this process."""
        return self._broker.is_shared

    def take(self, newest: ConfigurationVersion) -> None:
        """Let a version hold; one that cannot changes nothing, and is told. Never raises."""
        self.newest = newest
        try:
            self._take_over(self._build(self._layers, newest.overlay))
        except ConfigurationError as error:
            self.problem = str(error)
            self._events.log("error", "configuration_refused", version=newest.version, problem=self.problem)
        else:
            self.applied, self.problem = newest, None
            self._events.log("info", "configured", version=newest.version, author=newest.author)

    def reload(self, layers: Layers) -> list[str]:
        """Let what was read again hold below the overlay; return the changed sections that need a restart.

        Raises ConfigurationError, and nothing has changed, where the two do not go together.
        """
        try:
            fixed = self._take_over(self._build(layers, self.newest.overlay))
        except ConfigurationError:
            if self.applied == self.newest:
                raise
            fixed = self._take_over(self._build(layers, self.applied.overlay))
        else:
            self.applied, self.problem = self.newest, None
        self._layers = layers
        return fixed

    async def change(self, patch: Any, *, author: str, expected: int | None = None) -> None:
        """Apply a merge patch to the overlay of all nodes; it holds on this one when it returns.

        Raises ConfigurationError where this node could not run with the outcome, NotNewest where `expected` is not the
        newest version, and BrokerUnavailable: then it may have happened all the same. A patch that changes nothing
        makes no version.
        """
        check_overlay(patch)
        await self._put(lambda overlay: patched(overlay, patch), author, expected)

    async def restore(self, version: int, *, author: str, expected: int | None = None) -> None:
        """Go back to the overlay of an earlier version (0: none), as a new one. Raises also UnknownVersion."""
        overlay: dict[str, Any] = {}
        if version:
            kept = {one.version: one for one in await self.history(VERSIONS_KEPT)}
            if version not in kept:
                raise UnknownVersion(f"there is no version {version}, or no more: {VERSIONS_KEPT} are kept")
            overlay = kept[version].overlay
        await self._put(lambda _: overlay, author, expected, restores=version)

    async def history(self, limit: int) -> list[ConfigurationVersion]:
        """Tell the newest versions, the newest first. Raises BrokerUnavailable."""
        return await self._broker.configurations(limit)

    async def _put(
        self,
        change: Callable[[dict[str, Any]], Any],
        author: str,
        expected: int | None,
        restores: int | None = None,
    ) -> None:
        for _ in range(ATTEMPTS):
            newest = next(iter(await self.history(1)), _NOTHING)
            if expected not in (None, newest.version):
                raise NotNewest(newest.version)
            overlay = change(newest.overlay)
            _check_door(self._build(self._layers, overlay))
            if overlay == newest.overlay:
                if newest.version > self.newest.version:
                    self.take(newest)
                return
            version = ConfigurationVersion(newest.version + 1, self._clock.unix_ms(), author, overlay, restores)
            if await self._broker.configure(version):
                return
        raise BrokerUnavailable("others change the configuration at the same time, or wrote a version unknown here")

    @staticmethod
    def _build(layers: Layers, overlay: Mapping[str, Any]) -> Settings:
        """Build settings that can be used, their keys included. Raises ConfigurationError."""
        settings = layers.build(overlay)
        try:
            load_keys(settings.auth)
        except ConfigurationError as error:
            raise ConfigurationError(layers.source_of("auth.keys", overlay), error.key, error.reason) from None
        return settings


def _check_door(settings: Settings) -> None:
    """Raise ConfigurationError for a change after which nobody could make another one."""
    http = settings.listen.http
    if http is not None and not http.is_loopback and not settings.auth.api_keys:
        raise ConfigurationError(CENTRE, "auth.api_keys", "is empty: nobody could change anything any more")
