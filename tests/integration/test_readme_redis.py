"""What the README says of Redis is true: its URLs are read, and the user that it shows may do what notifyd does."""

import re
import time
from pathlib import Path

import pytest

import notifyd.broker.redis as redis_package
from notifyd.auth.revocations import Revocation
from notifyd.broker.base import Retention, SessionRecord
from notifyd.broker.redis.broker import RedisBroker
from notifyd.broker.redis.target import parse_target
from notifyd.clock import Clock
from notifyd.model import SessionId
from notifyd.settings import BrokerSettings, Url
from protocol.messages import Member
from tests.kit.redis_process import Version, versions
from tests.kit.redis_servers import standalone
from tests.kit.services import open_services
from tests.recorded_events import RecordedEvents
from tests.unit.broker.conformance import Received

README = Path(__file__).parents[2] / "README.md"
SECTION = README.read_text(encoding="utf-8").partition("### Redis\n")[2].partition("\n### ")[0]
RULES = re.findall(r"^user notifyd on >PASSWORD (.+)$", SECTION, re.MULTILINE)[0]
GRANTED = frozenset(re.findall(r"\+([a-z|]+)", RULES))


def test_the_urls_it_shows_are_read() -> None:
    urls = re.findall(r"`((?:redis|unix)[a-z+]*://[^`…]+)`", SECTION)
    assert [parse_target(url).kind for url in urls] == [*["standalone"] * 2, "sentinel", "cluster", "standalone"]


def test_the_options_it_names_are_known() -> None:
    rows = re.findall(r"^\| (`(?:db|ssl|sentinel)_?.*?) \| (.+?) \|", SECTION, re.MULTILINE)
    for names, where in rows:
        kind = "+sentinel://h/service" if where == "Sentinel" else "://h"
        given = "&".join(f"{name}={1 if name == 'db' else 'true'}" for name in re.findall(r"`(\w+)`", names))
        parse_target(f"rediss{kind}?{given}")
    assert len(rows) == 5


def test_what_scripts_call_is_granted() -> None:
    scripts = Path(redis_package.__file__).parent.glob("lua/*.lua")
    called = {name.lower() for script in scripts for name in re.findall(r"redis\.call\('([A-Z]+)'", script.read_text())}
    assert called
    assert called <= GRANTED


@pytest.mark.parametrize("version", versions(), ids=str)
async def test_the_user_it_shows_may_do_just_what_is_done(version: Version) -> None:
    with standalone(version=version, users={"notifyd": f">secret {RULES}"}) as server:
        await live(BrokerSettings(url=Url(f"redis://notifyd:secret@{server.address}"), timeout_s=5.0))
        assert server.cli("ACL", "LOG") == []
        used = set(re.findall(r"^cmdstat_(\S+?):", server.cli("INFO", "commandstats"), re.MULTILINE))
    used_words = {name.split("|")[0] for name in used}
    assert {command for command in GRANTED if command.split("|")[0] not in used_words} == set()


async def live(settings: BrokerSettings) -> None:
    """Do whatever a node does with its broker."""
    keep, member = Retention(10, 60.0), Member(user="ann", session="s1", since=1)
    async with open_services() as services:
        broker = RedisBroker(Received(), settings, node="n1", clock=Clock(), events=RecordedEvents())
        await broker.start(services)
        assert await broker.subscribe("a:b", keep) is None
        none = Retention(0, 0.0)
        for topic, retention in (("a:b", keep), ("a:c", none), ("a:d", keep), ("a:d", none), ("a:b", keep)):
            assert (await broker.publish(topic, 1, retention, key=f"key of {topic} {retention.history}")).scope is None
        assert len((await broker.history("a:b", "earliest", 10, Retention(10, 30.0))).messages) == 1
        await broker.join("a:b", member, announce=True)
        assert await broker.presence("a:b") == [member]
        await broker.leave("a:b", member, announce=True)
        assert "a:b" in await broker.topics()
        for _ in range(2):
            assert await broker.save_session(SessionRecord(SessionId("s1"), "ann", {"a:b": None}), 60.0)
        assert await broker.load_session(SessionId("s1"), "ann")
        await broker.end_session(SessionId("s1"))
        await broker.revoke(Revocation(until_s=time.time() + 60, token_id="j"))
        await broker.unsubscribe("a:b")
        assert await broker.problems() == []
        await broker.close()
