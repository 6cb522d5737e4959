"""TLS handshakes that fail, client certificates, and the server's context: what each wrong file is told."""

import ssl
from pathlib import Path

import pytest
import trio
import trio.testing

from notifyd.errors import ConfigurationError, StreamBroken
from notifyd.settings import Tls
from notifyd.transport.tls import TlsStream, server_context
from tests.certificates import Certificates, certificates
from tests.unit.transport.wire import TlsClient, Wire, handshake

__all__ = ["certificates"]

HELLO = b"\x16\x03\x01\x00\x05"


class NoTlsYet(ssl.SSLContext):
    """Fails the test when TLS is set up."""

    def wrap_bio(self, *_: object, **__: object) -> ssl.SSLObject:
        pytest.fail("TLS was set up")


async def refusal(data: bytes, context: ssl.SSLContext, *, end: bool = False) -> str:
    """Why a handshake that receives this fails."""
    wire = Wire()
    wire.deliver(data, end=end)
    with pytest.raises(StreamBroken) as caught:
        await TlsStream(wire, context).handshake()
    return str(caught.value)


# --- half a hello and worse -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"GET /ws HTTP/1.1\r\n",
        b"HEAR\0",
        b"\0",
        b"\x15\x03\x03\x00\x02\x01\x00",
        b"\x16\x02\x01\x00\x05",
        b"\x16\x03\x01\x40\x01",
        b"\x16\x03\x01\0\0",
    ],
    ids=["HTTP", "a frame", "NUL", "alert", "no version", "too long", "empty"],
)
async def test_what_is_no_tls_is_refused_before_tls_is_set_up(data: bytes) -> None:
    assert "does not speak TLS" in await refusal(data, NoTlsYet(ssl.PROTOCOL_TLS_SERVER))


@pytest.mark.parametrize("cut", range(10))
async def test_half_a_hello_costs_its_bytes_only(cut: int) -> None:
    context = NoTlsYet(ssl.PROTOCOL_TLS_SERVER)
    wire = Wire()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(TlsStream(wire, context).handshake)
        for at in range(cut):
            wire.deliver((HELLO + b"hello")[at : at + 1])
            await trio.testing.wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 1
        nursery.cancel_scope.cancel()
    assert "left before" in await refusal((HELLO + b"hello")[:cut], context, end=True)


async def test_nonsense_in_a_record_is_refused(certificates: Certificates) -> None:
    wire = Wire()
    wire.deliver(HELLO + b"hello")
    with pytest.raises(StreamBroken, match="TLS: "):
        await TlsStream(wire, server_context(certificates.tls())).handshake()
    assert wire.take_sent().startswith(b"\x15\x03")  # an alert says so


async def test_a_peer_that_leaves_halfway(certificates: Certificates) -> None:
    hello = TlsClient(certificates.client_context()).shake_hands()
    assert "TLS: " in await refusal(hello, server_context(certificates.tls()), end=True)


async def test_an_alert_that_cannot_be_sent_changes_nothing(certificates: Certificates) -> None:
    wire = Wire()
    wire.send_fails = True
    wire.deliver(HELLO + b"hello")
    with pytest.raises(StreamBroken, match="TLS: "):
        await TlsStream(wire, server_context(certificates.tls())).handshake()


async def test_a_blocked_socket_delays_the_handshake(certificates: Certificates) -> None:
    client, wire = TlsClient(certificates.client_context()), Wire(room_bytes=100)
    wire.deliver(client.shake_hands())
    async with trio.open_nursery() as nursery:
        stream = TlsStream(wire, server_context(certificates.tls()))
        nursery.start_soon(stream.handshake)
        await trio.testing.wait_all_tasks_blocked()
        assert len(wire.sent) == 100
        while nursery.child_tasks:
            wire.deliver(client.shake_hands(wire.take_sent()))
            wire.make_room(100)
            await trio.testing.wait_all_tasks_blocked()
    assert stream.send_now(b"") == 0


async def test_nothing_can_be_sent_before_the_handshake(certificates: Certificates) -> None:
    stream = TlsStream(Wire(), server_context(certificates.tls()))
    with pytest.raises(StreamBroken, match="handshake"):
        stream.send_now(b"a")


# --- versions and certificates --------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
async def test_tls_1_1_is_refused(certificates: Certificates) -> None:
    context = certificates.client_context(version=ssl.TLSVersion.TLSv1_1)
    context.set_ciphers("ALL:@SECLEVEL=0")
    hello = TlsClient(context).shake_hands()
    assert "UNSUPPORTED_PROTOCOL" in await refusal(hello, server_context(certificates.tls()))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    ("shown", "complaint"),
    [
        ("", "PEER_DID_NOT_RETURN_A_CERTIFICATE"),
        ("stranger", "unable to get local issuer"),
        ("expired_client", "expired"),
    ],
)
async def test_a_client_without_a_good_certificate_is_refused(
    certificates: Certificates, version: ssl.TLSVersion, shown: str, complaint: str
) -> None:
    context = certificates.client_context(certificate=shown, version=version)
    with pytest.RaisesGroup(pytest.RaisesExc(StreamBroken, match=complaint), flatten_subgroups=True):
        await handshake(server_context(certificates.tls(client_ca=True)), TlsClient(context))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_client_with_a_good_certificate(certificates: Certificates, version: ssl.TLSVersion) -> None:
    context = certificates.client_context(certificate="client", version=version)
    pair = await handshake(server_context(certificates.tls(client_ca=True)), TlsClient(context))
    assert pair.stream.send_now(b"welcome") == 7
    assert pair.arrived() == b"welcome"


async def test_both_ends_can_be_ours(certificates: Certificates) -> None:
    here, there = Wire(), Wire()
    server = TlsStream(here, server_context(certificates.tls()))
    client = TlsStream(there, certificates.client_context(), "localhost")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.handshake)
        nursery.start_soon(client.handshake)
        while len(nursery.child_tasks) > 0:
            here.deliver(there.take_sent())
            there.deliver(here.take_sent())
            await trio.testing.wait_all_tasks_blocked()
    server.send_now(b"hello")
    there.deliver(here.take_sent())
    assert await client.receive_some() == b"hello"


# --- the server's context -------------------------------------------------------------------------------------------


def test_the_context_is_strict(certificates: Certificates) -> None:
    context = server_context(certificates.tls())
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.options & ssl.OP_NO_COMPRESSION
    assert context.verify_mode == ssl.CERT_NONE
    assert server_context(certificates.tls(client_ca=True)).verify_mode == ssl.CERT_REQUIRED


def wrong(tls: Tls) -> tuple[str, str, str]:
    with pytest.raises(ConfigurationError) as caught:
        server_context(tls)
    error = caught.value
    return error.source, error.key, error.reason


def test_a_file_that_is_missing(certificates: Certificates, tmp_path: Path) -> None:
    gone = tmp_path / "gone.pem"
    for tls, key in (
        (Tls(certificate=gone, key=certificates.server_key), "certificate"),
        (Tls(certificate=certificates.server, key=gone), "key"),
        (Tls(certificate=certificates.server, key=certificates.server_key, client_ca=gone), "client_ca"),
    ):
        assert wrong(tls) == (str(gone), f"listen.tls.{key}", "No such file or directory")


def test_a_directory(certificates: Certificates, tmp_path: Path) -> None:
    assert wrong(Tls(certificate=tmp_path, key=certificates.server_key))[2] == "Is a directory"


def test_files_mixed_up(certificates: Certificates) -> None:
    source, key, reason = wrong(Tls(certificate=certificates.server_key, key=certificates.server))
    assert (source, key) == (str(certificates.server_key), "listen.tls.certificate")
    assert "no PEM" in reason
    assert wrong(Tls(certificate=certificates.server, key=certificates.server))[1] == "listen.tls.key"
    swapped = Tls(certificate=certificates.server, key=certificates.server_key, client_ca=certificates.server_key)
    assert wrong(swapped)[1] == "listen.tls.client_ca"


def test_a_key_of_another_certificate(certificates: Certificates) -> None:
    source, key, reason = wrong(Tls(certificate=certificates.server, key=certificates.client_key))
    assert (source, key) == (str(certificates.client_key), "listen.tls.key")
    assert str(certificates.server) in reason


def test_an_encrypted_key_asks_nobody(certificates: Certificates) -> None:
    source, key, reason = wrong(Tls(certificate=certificates.server, key=certificates.encrypted_key))
    assert (source, key) == (str(certificates.encrypted_key), "listen.tls.key")
    assert "encrypted" in reason


def test_damaged_files(certificates: Certificates, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.pem"
    damaged.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    assert wrong(Tls(certificate=damaged, key=certificates.server_key))[:2] == (str(damaged), "listen.tls.certificate")
    tls = Tls(certificate=certificates.server, key=certificates.server_key, client_ca=damaged)
    assert wrong(tls)[:2] == (str(damaged), "listen.tls.client_ca")
