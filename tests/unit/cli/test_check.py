import resource
import socket
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from notifyd.settings import load
from tests.certificates import Authority, Certificates, write_certificates
from tests.reliability.tokens import make_key_ring, private_pem, public_pem
from tests.unit.cli.command_line import Run

PORTS = '[listen]\nwebsocket = "127.0.0.1:0"\ndevice = "127.0.0.1:0"\nhttp = "127.0.0.1:0"\n'
AUTH = '[auth]\nkeys = [{ algorithm = "HS512", secret = "' + "s" * 64 + '", kid = "1" }]\n'


def write(text: str) -> Path:
    path = Path("notifyd.toml")
    path.touch(mode=0o600)
    path.write_text(text)
    return path


def test_a_good_file_is_summed_up(run: Run) -> None:
    write(PORTS + AUTH)
    assert run("check") == (
        0,
        (
            "listen.websocket: 127.0.0.1:0 can be had, without TLS\n"
            "listen.device: 127.0.0.1:0 can be had, without TLS\n"
            "listen.http: 127.0.0.1:0 can be had\n"
            "broker.url: memory:// needs no connection\n"
            "auth: tokens only, 1 key for tokens, 0 API keys\n"
            "can change while the node runs: auth, heartbeat, limits, sessions, topics, log\n"
            "need a restart: node, listen, broker, tracing, debug\n"
            "notifyd.toml: ok\n"
        ),
        "",
    )


def test_a_collector_is_tried(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as collector:
        place = f"127.0.0.1:{collector.getsockname()[1]}"
        write(f'{PORTS}{AUTH}[tracing]\nendpoint = "http://user:s3cr3t@{place}"\nratio = 0.25\n')
        code, out, _ = run("check")
    shown = f"http://hidden@{place}"
    assert code == 0
    assert f"tracing.endpoint: {shown} gets the traces that publishers sample, and 25% of what has no trace\n" in out
    assert "warning" not in out
    code, out, _ = run("check")  # nobody is there any more, and a node serves all the same
    assert code == 0
    assert f"warning: notifyd.toml: tracing.endpoint: nobody takes spans at {shown}: Connection refused\n" in out


def test_a_collector_needs_the_extra(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    write(f'{PORTS}{AUTH}[tracing]\nendpoint = "http://127.0.0.1:4318"\n')
    code, out, err = run("check")
    assert (code, out) == (1, "")
    assert err.startswith("notifyd.toml: tracing.endpoint: needs OpenTelemetry: pip install 'notifyd[tracing]' (")


def test_no_configuration_at_all(run: Run) -> None:
    code, out, err = run("check")
    assert (code, out) == (1, "")
    assert err == (
        "notifyd.toml: no such file, and no other configuration; `notifyd init` writes one, `notifyd demo` needs none\n"
    )
    assert run("check", "--config", "x.toml").err.startswith("x.toml: no such file")


def test_the_environment_alone_is_a_configuration(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFYD_LISTEN", '{ websocket = "127.0.0.1:0", device = "", http = "" }')
    monkeypatch.setenv("NOTIFYD_AUTH__ANONYMOUS", "true")
    code, out, _ = run("check")
    assert code == 0
    assert "listen.device: off\n" in out
    assert "auth: anonymous access, 0 keys for tokens, 0 API keys\n" in out
    assert out.endswith("\nenvironment: ok\n")
    monkeypatch.setenv("NOTIFYD_LIMITS__QUEUE", "lots")
    assert run("check").err == ('NOTIFYD_LIMITS__QUEUE: limits.queue: expected a size such as "64KiB", got "lots"\n')


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('limits.payload = "sixty"', 'notifyd.toml: limits.payload: expected a size such as "64KiB", got "sixty"'),
        (
            'broker.url = "redis://:secret@127.0.0.1:1"',
            "notifyd.toml: broker.url: ",
        ),
        (
            'broker.url = "redis+sentinel://127.0.0.1:1"',
            "notifyd.toml: broker.url: ",
        ),
        (
            'listen.websocket = "192.0.2.1:0"',
            "notifyd.toml: listen.websocket: 192.0.2.1:0 is no address of this machine",
        ),
        ('listen.http = "host.invalid:0"', "notifyd.toml: listen.http: host.invalid:0 cannot be listened on: "),
        (
            'auth.keys = [{ algorithm = "ES256", public_key = "-----BEGIN PUBLIC KEY-----" }]',
            "notifyd.toml: auth.keys[0].public_key: cannot be used with ES256: ",
        ),
    ],
)
def test_what_is_wrong_is_named(text: str, error: str, run: Run) -> None:
    write(text)
    code, out, err = run("check")
    assert (code, out) == (1, "")
    assert err.startswith(error)
    assert "secret@" not in err


def test_a_private_key_is_refused_and_not_shown(run: Run) -> None:
    Path("key.pem").write_text(private_pem(make_key_ring().private["ES256"]))
    write(PORTS + '[auth]\nkeys = [{ algorithm = "ES256", public_key = { file = "key.pem" } }]')
    err = run("check").err
    assert err.startswith("notifyd.toml: auth.keys[0].public_key: is a private key")
    assert Path("key.pem").read_text().splitlines()[1] not in err


def test_every_kind_of_key_is_read(run: Run) -> None:
    Path("key.pem").write_text(public_pem(make_key_ring().private["ES256"]))
    Path("set.json").write_text(str(make_key_ring().auth.keys[-1].jwks))
    key = '{ algorithm = "ES256", public_key = { file = "key.pem" } }'
    write(f'{PORTS}[auth]\nkeys = [{key}, {{ jwks = {{ file = "set.json" }} }}]')
    code, out, _ = run("check")
    assert code == 0
    assert "2 keys for tokens" in out


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def test_a_port_in_use_is_one_line(run: Run, taken: int) -> None:
    write(AUTH + f'[listen]\nwebsocket = "127.0.0.1:0"\nhttp = ""\ndevice = "127.0.0.1:{taken}"')
    code, out, err = run("check")
    assert (code, out) == (1, "")
    assert err == (
        f"notifyd.toml: listen.device: 127.0.0.1:{taken} is in use: a node may be running already, "
        "else choose another port\n"
    )


def test_addresses_are_given_back(run: Run, taken: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    write(AUTH + f'[listen]\nwebsocket = "127.0.0.1:{port}"\nhttp = ""\ndevice = ""')
    assert run("check").code == 0
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_warnings_are_told_and_not_fatal(run: Run) -> None:
    path = write(PORTS + '[auth]\nkeys = [{ algorithm = "HS512", secret = "weak" }]')
    path.chmod(0o644)
    code, out, err = run("check")
    assert (code, err) == (0, "")
    warnings = [line for line in out.splitlines() if line.startswith("warning: ")]
    assert warnings == [
        "warning: notifyd.toml: auth.keys[0].secret: is weak: HS512 needs a random secret of at least 64 bytes",
        "warning: notifyd.toml: holds secrets and others on this machine can read it (chmod 600 notifyd.toml)",
    ]
    assert out.endswith("notifyd.toml: ok\n")


def test_a_file_without_secrets_may_be_read(run: Run) -> None:
    write(PORTS + "[auth]\nanonymous = true").chmod(0o644)
    assert "warning" not in run("check").out


@pytest.mark.parametrize(("hard", "warned"), [(100, True), (10_100, False), (resource.RLIM_INFINITY, False)])
def test_too_few_descriptors(hard: int, warned: bool, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (hard, hard))
    write(PORTS + AUTH)
    assert ("needs 10100 file descriptors and the system allows 100" in run("check").out) is warned


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return write_certificates(tmp_path)


def tls(certificate: str = "server.pem", key: str = "server.key", client_ca: str = "authority.pem") -> str:
    return PORTS + f'tls = {{ certificate = "{certificate}", key = "{key}", client_ca = "{client_ca}" }}\n' + AUTH


def test_certificates_are_read(run: Run, certificates: Certificates) -> None:
    path = write(tls())
    code, out, err = run("check")
    assert (code, err) == (0, "")
    assert "warning" not in out
    assert "listen.websocket: 127.0.0.1:0 can be had, with TLS\n" in out
    assert "listen.http: 127.0.0.1:0 can be had\n" in out
    path.write_text(tls().replace(', client_ca = "authority.pem"', ""))
    assert load(path.absolute(), {}, {}).listen.tls == certificates.tls()
    assert run("check").code == 0


@pytest.mark.parametrize(
    ("files", "key", "reason"),
    [
        ({"certificate": "none.pem"}, "certificate", "none.pem: No such file"),
        ({"key": "none.key"}, "key", "none.key: No such file"),
        ({"client_ca": "none.pem"}, "client_ca", "none.pem: No such file"),
        ({"certificate": "server.key"}, "certificate", "server.key: holds no PEM"),
        ({"key": "server.pem"}, "key", "server.pem: holds no PEM"),
        ({"key": "client.key"}, "key", "client.key: is not the key of the certificate in server.pem"),
        ({"key": "encrypted.key"}, "key", "encrypted.key: is encrypted"),
        ({"client_ca": "server.key"}, "client_ca", "server.key: holds no PEM"),
    ],
)
def test_wrong_certificates_are_named(
    files: dict[str, str], key: str, reason: str, run: Run, certificates: Certificates
) -> None:
    write(tls(**files))
    code, out, err = run("check")
    assert (code, out) == (1, "")
    assert err.startswith(f"notifyd.toml: listen.tls.{key}: {reason}")


def test_certificates_that_end_are_told(run: Run, certificates: Certificates, tmp_path: Path) -> None:
    Authority(tmp_path, "a").sign("soon", ExtendedKeyUsageOID.SERVER_AUTH, datetime.now(UTC) + timedelta(days=3))
    write(tls("soon.pem", "soon.key", "expired.pem"))
    out = run("check").out
    assert "warning: notifyd.toml: listen.tls.certificate: soon.pem expires on " in out
    assert "warning: notifyd.toml: listen.tls.client_ca: expired.pem expired on 2020-01-02" in out
