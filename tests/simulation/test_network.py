"""What the simulated network does to a connection, each thing by itself."""

import pytest
import trio
from trio.testing import MockClock

from notifyd.errors import StreamBroken
from tests.simulation.network import CAPACITY_BYTES, ClientStream, End, Network, RedisStream


class Pair:
    """Two ends: the one that dialled, as the link to Redis sees it, and the other, as a node does."""

    def __init__(self, network: Network, near: End, far: End) -> None:
        self.network = network
        self.near = RedisStream(near)
        self.far = ClientStream(far)


async def connected(network: Network, **fields: int) -> Pair:
    accepted: list[End] = []
    network.listen("b", accepted.append)
    near = await network.dial("a", "b", **fields)
    return Pair(network, near, accepted[-1])


@pytest.fixture
async def network(nursery: trio.Nursery) -> Network:
    network = Network(seed=1)
    await nursery.start(network.run)
    return network


async def exactly(pair: Pair, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += await pair.far.receive_some()
    return data


async def test_bytes_arrive_in_order_after_the_delay(autojump_clock: MockClock, network: Network) -> None:
    pair = await connected(network)
    network.route("a", "b").delay_s = 0.5
    network.route("a", "b").jitter_s = 0.4
    began_s = trio.current_time()
    for number in range(100):
        await pair.near.send_all(b"%04d" % number)
    assert await exactly(pair, 400) == b"".join(b"%04d" % number for number in range(100))
    assert 0.5 <= trio.current_time() - began_s <= 0.9


async def test_nobody_listening_refuses(autojump_clock: MockClock, network: Network) -> None:
    with pytest.raises(ConnectionRefusedError):
        await network.dial("a", "nobody")


async def test_a_clogged_route_holds_everything_and_loses_nothing(autojump_clock: MockClock, network: Network) -> None:
    pair = await connected(network)
    route = network.route("a", "b")
    route.clogged = True
    await pair.near.send_all(b"x" * CAPACITY_BYTES)
    with trio.move_on_after(100) as scope:
        await pair.near.send_all(b"y")
    assert scope.cancelled_caught
    with trio.move_on_after(100) as scope:
        await pair.far.receive_some()
    assert scope.cancelled_caught
    with trio.move_on_after(100) as scope:
        await network.dial("a", "b")
    assert scope.cancelled_caught
    route.clogged = False
    assert await exactly(pair, CAPACITY_BYTES) == b"x" * CAPACITY_BYTES


async def test_a_cut_loses_what_is_under_way_and_both_know(autojump_clock: MockClock, network: Network) -> None:
    pair = await connected(network)
    await pair.near.send_all(b"lost")
    network.cut("a", "b")
    with pytest.raises(trio.BrokenResourceError):
        await pair.near.receive_some()
    with pytest.raises(StreamBroken):
        await pair.far.receive_some()
    with pytest.raises(StreamBroken):
        pair.far.send_now(b"x")


async def test_a_cut_that_one_side_does_not_see_is_learnt_by_sending(
    autojump_clock: MockClock, network: Network
) -> None:
    pair = await connected(network)
    network.cut("a", "b", seen_by={"b"})
    with pytest.raises(StreamBroken):
        await pair.far.receive_some()
    with trio.move_on_after(1000) as scope:
        await pair.near.receive_some()
    assert scope.cancelled_caught
    await pair.near.send_all(b"anybody there?")
    with pytest.raises(trio.BrokenResourceError):
        await pair.near.receive_some()


async def test_a_close_is_read_behind_what_was_sent(autojump_clock: MockClock, network: Network) -> None:
    pair = await connected(network)
    pair.far.send_now(b"last words")
    pair.far.close()
    data = b""
    while len(data) < 10:
        data += await pair.near.receive_some()
    assert data == b"last words"
    assert await pair.near.receive_some() == b""
    await pair.near.send_all(b"too late")
    await trio.sleep(1)
    with pytest.raises(trio.BrokenResourceError):
        await pair.near.receive_some()


async def test_who_sends_to_one_that_does_not_read_is_held_up(autojump_clock: MockClock, network: Network) -> None:
    pair = await connected(network, target_capacity_bytes=10)
    assert pair.far.send_now(b"x" * 15) == 10
    assert pair.far.send_now(b"x") == 0
    with trio.move_on_after(5) as scope:
        await pair.far.wait_writable()
    assert scope.cancelled_caught
    await pair.near.receive_some()
    await pair.far.wait_writable()


async def test_closing_here_breaks_off_here(autojump_clock: MockClock, network: Network) -> None:
    pair = await connected(network)
    await pair.near.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await pair.near.send_all(b"x")
    assert await pair.far.receive_some() == b""
    assert network.connections_of("a") == []
