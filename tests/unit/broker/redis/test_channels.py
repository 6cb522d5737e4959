"""The books of a feed against a server that does what they say: any order of wishes, questions, answers and losses."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from notifyd.broker.redis.channels import Channels

CHANNELS = st.sampled_from(["a", "b", "c"])
MOST = st.integers(1, 3)


class Asking(RuleBasedStateMachine):
    """`at_server` is what is subscribed there, `under_way` the one batch that was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.books = Channels()
        self.wanted: set[str] = set()
        self.at_server: set[str] = set()
        self.under_way: tuple[str, list[str]] | None = None

    @rule(channel=CHANNELS)
    def want(self, channel: str) -> None:
        self.wanted.add(channel)
        self.books.want(channel)

    @rule(channel=CHANNELS)
    def unwant(self, channel: str) -> None:
        self.wanted.discard(channel)
        self.books.unwant(channel)

    @precondition(lambda self: self.under_way is None)
    @rule(most=MOST)
    def subscribe(self, most: int) -> None:
        batch = self.books.take_missing(most)
        self.at_server.update(batch)
        self.under_way = ("subscribe", batch)

    @precondition(lambda self: self.under_way is None)
    @rule(most=MOST)
    def unsubscribe(self, most: int) -> None:
        batch = self.books.take_surplus(most)
        self.at_server.difference_update(batch)
        self.under_way = ("unsubscribe", batch)

    @precondition(lambda self: self.under_way is not None)
    @rule()
    def answer(self) -> None:
        assert self.under_way is not None
        (verb, batch), self.under_way = self.under_way, None
        if verb == "subscribe":
            standing = self.books.confirm(batch)
            assert {*standing} == {channel for channel in batch if channel in self.at_server}
        else:
            self.books.release(batch)

    @precondition(lambda self: self.under_way is not None)
    @rule(unknown=st.booleans())
    def fail(self, unknown: bool) -> None:
        """Refused, or not known: then it may be that it was done, or not."""
        assert self.under_way is not None
        (verb, batch), self.under_way = self.under_way, None
        if verb == "unsubscribe":
            self.at_server.update(batch if unknown else [])
            self.books.put_off(batch)
        elif unknown:
            self.books.put_off(batch)
        else:
            self.at_server.difference_update(batch)
            self.books.refuse(batch)

    @rule(channel=CHANNELS)
    def revoke(self, channel: str) -> None:
        if channel in self.at_server:
            self.at_server.discard(channel)
            self.books.revoke(channel)

    @rule()
    def retry(self) -> None:
        self.books.retry()

    @rule()
    def lose(self) -> None:
        """The connection is gone, and who asked with it."""
        self.at_server.clear()
        self.under_way = None
        self.books.lose()

    @invariant()
    def nothing_is_called_confirmed_that_is_not(self) -> None:
        assert self.books.confirmed <= self.at_server
        assert {*self.books.wanted} == self.wanted

    @invariant()
    def nothing_is_forgotten(self) -> None:
        """What is wanted and not there will be asked for, what is there and not wanted will be ended."""
        books = self.books
        asked = {*self.under_way[1]} if self.under_way is not None else set()
        assert self.wanted <= books.confirmed | books._missing.keys() | books._put_off.keys() | asked
        assert self.at_server <= self.wanted | books._surplus.keys() | books._put_off.keys() | asked
        assert not self.wanted & books._surplus.keys()

    def teardown(self) -> None:
        """In the end all that is wanted is subscribed, and nothing else."""
        if self.under_way is not None:
            self.answer()
        self.books.retry()
        for _ in range(3):
            self.subscribe(10)
            self.answer()
            self.unsubscribe(10)
            self.answer()
        assert self.at_server == self.books.confirmed == self.books._held == self.wanted
        assert not self.books.has_work
        assert not self.books.has_put_off


TestAsking = Asking.TestCase
