"""TLS over a stream of ours, by memory buffers: the sending side stays synchronous and never waits.

Python's own non-blocking TLS sockets want a send that would block to be repeated with the same bytes; here every byte
taken is encrypted at once, and what the socket does not take is held as ciphertext, within a bound.

Source: RFC 8446, RFC 5246; notifyd.transport.stream for what a ByteStream promises.
"""

import contextlib
import ssl
from pathlib import Path

import trio

from notifyd.errors import ConfigurationError, StreamBroken
from notifyd.settings import Tls
from notifyd.transport.stream import RECEIVE_BYTES, ByteStream

SEND_BYTES = 64 * 1024
"""Plaintext encrypted before the socket is asked again: a few records for one system call."""

HELD_BYTES = SEND_BYTES + 32 * 1024
"""Ciphertext that may be held: one batch, its records' overhead, and answers of the TLS layer itself.

A peer that makes us answer (key updates, renegotiation) and does not read is cut off here.
"""

READS_AT_ONCE = 64
"""Records decrypted in one go: tiny ones, thousands to a segment, must not keep the other connections waiting."""

_RECORD_HEADER_BYTES = 5
_HANDSHAKE_RECORD = 0x16
_MAJOR_VERSION = 3
_RECORD_BYTES = 16 * 1024


class TlsStream:
    """A ByteStream, encrypted, over another one, which it owns. `handshake` comes first."""

    __slots__ = (
        "_context",
        "_ended",
        "_failure",
        "_held",
        "_incoming",
        "_outgoing",
        "_server_name",
        "_ssl",
        "_transport",
        "local",
        "peer",
    )

    def __init__(self, transport: ByteStream, context: ssl.SSLContext, server_name: str | None = None) -> None:
        """Wrap `transport`: as the server, or with `server_name` as the client of the server of that name."""
        self.peer = transport.peer
        self.local = transport.local
        self._transport = transport
        self._context = context
        self._server_name = server_name
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._ssl: ssl.SSLObject | None = None
        self._held: bytes | memoryview = b""
        self._ended = False
        self._failure: ssl.SSLError | None = None

    @property
    def transport(self) -> ByteStream:
        """The stream below: until the handshake begins, what comes on it is not encrypted yet."""
        return self._transport

    @property
    def has_unsent(self) -> bool:
        """Whether ciphertext of taken bytes is still held; `send_now(b"")` moves it on."""
        return bool(self._held)

    async def handshake(self) -> None:
        """Agree on keys and check certificates. The caller sets the deadline.

        Raises StreamBroken when no TLS comes of it. Nothing of TLS is set up before a server has the whole first
        record, so that half a hello costs no more than its bytes.
        """
        serving = self._server_name is None
        if serving:
            await self._receive_hello()
        tls = self._context.wrap_bio(self._incoming, self._outgoing, serving, self._server_name)
        while not self._shake_hands(tls):
            await self._flush_all()
            await self._receive_ciphertext()
        await self._flush_all()
        self._ssl = tls

    async def _receive_hello(self) -> None:
        record = bytearray()
        missing_bytes = _RECORD_HEADER_BYTES
        while missing_bytes > 0:
            data = await self._transport.receive_some(missing_bytes)
            if not data:
                raise StreamBroken("the peer left before its TLS hello")
            record += data
            missing_bytes = _missing_of_hello(record)
        self._incoming.write(record)

    def _shake_hands(self, tls: ssl.SSLObject) -> bool:
        """Go on with the handshake; return whether it is done."""
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as failure:
            raise self._break(failure) from None
        return True

    async def receive_some(self, max_bytes: int = RECEIVE_BYTES) -> bytes:
        """Wait for plaintext; see ByteStream. A connection cut without close_notify ends like an orderly one.

        What the TLS layer has to answer is sent along the way. Always a checkpoint.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        waited = False
        while not (data := self._decrypt(max_bytes)) and not self._ended:
            self._answer()
            await self._receive_ciphertext()
            waited = True
        if not waited:
            await trio.lowlevel.cancel_shielded_checkpoint()
        return data

    async def _receive_ciphertext(self) -> None:
        data = await self._transport.receive_some()
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def _decrypt(self, max_bytes: int) -> bytes:
        """Return what can be decrypted now, b"" when more must come or the stream has ended."""
        tls = self._established()
        if self._failure is not None:
            raise self._break(self._failure)
        parts: list[bytes] = []
        try:
            while max_bytes > 0 and len(parts) < READS_AT_ONCE:
                part = tls.read(max_bytes)
                if not part:
                    self._ended = True
                    break
                parts.append(part)
                max_bytes -= len(part)
        except ssl.SSLWantReadError:
            pass
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            self._ended = True
        except ssl.SSLError as failure:
            if not parts:
                raise self._break(failure) from None
            self._failure = failure
        return b"".join(parts)

    def _answer(self) -> None:
        """Send what the TLS layer answered while reading. That it cannot be sent is for the sender to find out."""
        with contextlib.suppress(StreamBroken):
            self._flush()
        if len(self._held) + self._outgoing.pending > HELD_BYTES:
            raise StreamBroken("TLS: the peer asks for answers and does not read them")

    def send_now(self, data: bytes | memoryview) -> int:
        """Encrypt and send; see ByteStream. While ciphertext is held, nothing more is taken."""
        tls = self._ssl or self._established()
        if self._held or self._outgoing.pending:
            self._flush()
        rest, taken_bytes = data if len(data) <= SEND_BYTES else memoryview(data), 0
        try:
            while taken_bytes < len(rest) and not self._held:
                taken_bytes += tls.write(rest[taken_bytes : taken_bytes + SEND_BYTES])
                self._flush()
        except ssl.SSLError as failure:
            raise self._break(failure) from None
        return taken_bytes

    async def wait_writable(self) -> None:
        """Wait until the socket takes bytes again."""
        await self._transport.wait_writable()

    async def finish(self, deadline_s: float) -> None:
        """Send what is held, close_notify and FIN, wait for the peer's end, close within `deadline_s`."""
        end_s = trio.current_time() + deadline_s
        with trio.move_on_after(deadline_s), contextlib.suppress(StreamBroken):
            with contextlib.suppress(ssl.SSLError):  # it always wants the peer's close_notify, which nobody waits for
                self._established().unwrap()
            await self._flush_all()
        self._ssl = None
        await self._transport.finish(max(0.0, end_s - trio.current_time()))

    def close(self) -> None:
        """Close at once, without a word; see ByteStream."""
        self._ssl = None
        self._transport.close()

    def _established(self) -> ssl.SSLObject:
        if self._ssl is None:
            raise StreamBroken("closed, failed, or the TLS handshake is not done")
        return self._ssl

    def _break(self, failure: ssl.SSLError) -> StreamBroken:
        """Tell the peer by the alert that the TLS layer left behind, and give up."""
        self._ssl = None
        with contextlib.suppress(StreamBroken):
            self._flush()
        return StreamBroken(f"TLS: {_describe(failure)}")

    def _flush(self) -> None:
        """Send ciphertext for as long as the socket takes it."""
        while self._held or self._outgoing.pending:
            held = self._held or self._outgoing.read()
            sent_bytes = self._transport.send_now(held)
            if sent_bytes < len(held):
                self._held = memoryview(held)[sent_bytes:]
                break
            self._held = b""

    async def _flush_all(self) -> None:
        self._flush()
        while self._held:
            await self._transport.wait_writable()
            self._flush()


def server_context(tls: Tls) -> ssl.SSLContext:
    """Load certificate, key and, where configured, the authority whose signature every client must show.

    TLS 1.2 and above, without compression and renegotiation. Reads the files, so it blocks: for start-up. Raises
    ConfigurationError, which names the file and what is wrong with it.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_IGNORE_UNEXPECTED_EOF
    _check_pem(tls.certificate, "certificate", b"CERTIFICATE-----")
    _check_pem(tls.key, "key", b"PRIVATE KEY-----")
    try:
        context.load_cert_chain(tls.certificate, tls.key, password=b"")  # given, so that nobody is asked for one
    except ssl.SSLError as failure:
        raise _explain(tls, failure) from None
    if tls.client_ca is not None:
        _check_pem(tls.client_ca, "client_ca", b"CERTIFICATE-----")
        try:
            context.load_verify_locations(tls.client_ca)
        except ssl.SSLError as failure:
            raise _wrong(tls.client_ca, "client_ca", f"no certificate can be read: {_describe(failure)}") from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _check_pem(path: Path, key: str, marker: bytes) -> None:
    try:
        text = path.read_bytes()
    except OSError as failure:
        raise _wrong(path, key, failure.strerror or str(failure)) from None
    if marker not in text:
        raise _wrong(path, key, f"holds no PEM block that begins with -----BEGIN … {marker.decode()}")


def _explain(tls: Tls, failure: ssl.SSLError) -> ConfigurationError:
    if failure.reason == "KEY_VALUES_MISMATCH":
        return _wrong(tls.key, "key", f"is not the key of the certificate in {tls.certificate}")
    if b"ENCRYPTED" in tls.key.read_bytes():
        return _wrong(tls.key, "key", "is encrypted; a server needs a key without a password")
    return _wrong(tls.certificate, "certificate", f"it or its key in {tls.key} cannot be used: {_describe(failure)}")


def _wrong(path: Path, key: str, reason: str) -> ConfigurationError:
    return ConfigurationError(str(path), f"listen.tls.{key}", reason)


def _describe(failure: ssl.SSLError) -> str:
    return getattr(failure, "verify_message", None) or getattr(failure, "reason", None) or repr(failure)


def _missing_of_hello(record: bytearray) -> int:
    """Return how many bytes the first TLS record still needs. Raises StreamBroken when it cannot become a hello."""
    if record[0] != _HANDSHAKE_RECORD:
        raise StreamBroken("the peer does not speak TLS")
    if len(record) < _RECORD_HEADER_BYTES:
        return _RECORD_HEADER_BYTES - len(record)
    length = int.from_bytes(record[3:5])
    if record[1] != _MAJOR_VERSION or not 0 < length <= _RECORD_BYTES:
        raise StreamBroken("the peer does not speak TLS")
    return _RECORD_HEADER_BYTES + length - len(record)
