import contextlib
import ssl
import traceback
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifyd.broker.redis.target import Credentials, Endpoint, Target, TlsOptions, parse_target
from tests.certificates import Certificates, certificates

__all__ = ["certificates"]

A, B = Endpoint("10.0.0.1", 7001), Endpoint("h2", 6379)


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("redis://", None),
        ("redis://10.0.0.1:7001", Target("standalone", (A,))),
        ("REDIS://10.0.0.1:7001/", Target("standalone", (A,))),
        ("redis://h2/3", Target("standalone", (B,), database=3)),
        ("redis://h2?db=4", Target("standalone", (B,), database=4)),
        ("redis://[::1]:7001/0", Target("standalone", (Endpoint("::1", 7001),))),
        ("redis://ann:s%2Fx@h2", Target("standalone", (B,), credentials=Credentials("ann", "s/x"))),
        ("redis://:sx@h2", Target("standalone", (B,), credentials=Credentials("", "sx"))),
        ("unix:///run/r.sock", Target("standalone", (Endpoint(path="/run/r.sock"),))),
        (
            "unix://:sx@/run/r.sock?db=2",
            Target("standalone", (Endpoint(path="/run/r.sock"),), credentials=Credentials("", "sx"), database=2),
        ),
        ("rediss://h2", Target("standalone", (B,), tls=TlsOptions())),
        (
            "rediss://h2?ssl_ca_certs=/a&ssl_certfile=/c&ssl_keyfile=/k&ssl_check_hostname=false",
            Target("standalone", (B,), tls=TlsOptions("/a", "/c", "/k", check_hostname=False)),
        ),
        ("redis+sentinel://10.0.0.1:7001/main", Target("sentinel", (A,), "main")),
        (
            "redis+sentinel://ann:sx@10.0.0.1:7001,h2/main/2?sentinel_username=su&sentinel_password=sp",
            Target(
                "sentinel", (A, Endpoint("h2", 26379)), "main", Credentials("ann", "sx"), Credentials("su", "sp"), 2
            ),
        ),
        ("rediss+sentinel://10.0.0.1:7001/main/", Target("sentinel", (A,), "main", tls=TlsOptions())),
        ("redis+cluster://10.0.0.1:7001,h2,h2:6379", Target("cluster", (A, B))),
        ("rediss+cluster://10.0.0.1:7001/0", Target("cluster", (A,), tls=TlsOptions())),
    ],
)
def test_urls_name_servers(url: str, target: Target | None) -> None:
    if target is None:
        with pytest.raises(ValueError, match="server 1: expected host:port"):
            parse_target(url)
    else:
        assert parse_target(url) == target


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("", "expected redis://host:port/db, rediss://"),
        ("memory://", "expected redis://"),
        ("http://h2", "expected redis://"),
        ("redis:h2", "expected redis://"),
        ("redis://h2:port", "server 1: expected host:port, such as 127.0.0.1:6379"),
        ("redis://h2:0", "server 1: expected host:port"),
        ("redis://h2:65536", "server 1: expected host:port"),
        ("redis://::1", "server 1: expected host:port, such as .* or \\[::1\\]:6379"),
        ("redis://[::1", "expected redis://"),
        ("redis://h2/main", "behind host and port stands nothing but the number of the database"),
        ("redis://h2/0/1", "behind host and port stands nothing but the number"),
        ("redis://h1,h2", "several servers: write redis\\+sentinel://"),
        ("redis://h2?db=x", "expected db=N"),
        ("redis://h2?db=-1", "db: expected a number from 0 up"),
        (
            "redis://h2?socket_timeout=1",
            "'socket_timeout' is no option, or has no value: behind the \\? may stand db=…",
        ),
        ("redis://h2?db=", "'db' is no option, or has no value"),
        ("redis://h2?host=h3", "'host' is no option"),
        ("redis://h2?ssl_ca_certs=/a", "ssl_ca_certs needs TLS: write rediss://"),
        ("redis://h2?sentinel_password=x", "sentinel_password is for redis\\+sentinel:// alone"),
        ("rediss://h2?ssl_keyfile=/k", "ssl_keyfile needs ssl_certfile"),
        ("unix://run/r.sock", "name the socket by its absolute path"),
        ("unix://", "name the socket by its absolute path"),
        ("redis+sentinel://h1,h2", "name the service the Sentinels watch"),
        ("redis+sentinel://h1,,h2/main", "server 2: expected host:port, such as 127.0.0.1:26379"),
        ("redis+sentinel://h1/main/x", "behind the service stands nothing but the number"),
        ("redis+cluster://h1/1", "db: a Cluster has database 0 alone"),
        ("redis://us#er:x@h2", "percent-encode # "),
        ("redis://us/er:x@h2", "percent-encode # "),
        ("redis://us?er:x@h2", "percent-encode # "),
        ("redis://us@er:x@h2", "percent-encode # "),
    ],
)
def test_mistakes_are_told_with_what_was_expected(url: str, told: str) -> None:
    with pytest.raises(ValueError, match=f"^broker.url: {told}"):
        parse_target(url)


def test_a_target_tells_where_and_never_the_credentials() -> None:
    url = "rediss+sentinel://ann:pass-1@h1:7001,[::1]:7002/main/2?sentinel_username=su&sentinel_password=pass-2"
    target = parse_target(url)
    assert str(target) == "rediss+sentinel://hidden@h1:7001,[::1]:7002/main/2"
    assert repr(target) == f"Target({str(target)!r})"
    shown = f"{target!r} {target} {target.credentials!r} {target.sentinel_credentials}"
    assert not any(secret in shown for secret in ("pass-", "ann", "su&", "'su'"))
    assert str(parse_target("unix://:x@/run/r.sock?db=1")) == "unix://hidden@/run/r.sock?db=1"
    assert str(parse_target("redis+cluster://h1:1,h2:2")) == "redis+cluster://h1:1,h2:2"
    assert str(parse_target("redis://h1:1/5")) == "redis://h1:1/5"


@given(password=st.text(min_size=1, max_size=20), user=st.text(max_size=8))
def test_any_password_can_be_written_percent_encoded(password: str, user: str) -> None:
    for scheme, path in (
        ("redis", "/1"),
        ("redis+sentinel", "/main/1"),
        ("redis+cluster", ""),
        ("unix", "/run/r.sock"),
    ):
        place = "" if scheme == "unix" else "h2:7001"
        target = parse_target(f"{scheme}://{quote(user, safe='')}:{quote(password, safe='')}@{place}{path}")
        assert (target.username, target.password) == (user, password)


@given(
    password=st.text(st.sampled_from("secret:/?#@[]&=%,.7 \n"), min_size=1, max_size=16).map("S3CRET".__add__),
    scheme=st.sampled_from(["redis", "rediss", "unix", "redis+sentinel", "redis+cluster", "http"]),
    behind=st.sampled_from(["@h2:7001/0", "@h2:x", "@h1,h2:7001/main/0", "@/run/r.sock", "@h2?nothing=1", "@"]),
)
def test_no_error_repeats_a_password_however_it_was_written(password: str, scheme: str, behind: str) -> None:
    with contextlib.suppress(ValueError), no_secret_told("S3CRET"):
        target = parse_target(f"{scheme}://user:{password}{behind}")
        assert "S3CRET" not in f"{target!r} {target}"


@contextlib.contextmanager
def no_secret_told(secret: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        if secret in "".join(traceback.format_exception(error)):
            raise AssertionError(f"told a secret: {error}") from error
        raise


def test_tls_needs_the_servers_certificate(certificates: Certificates) -> None:
    options = TlsOptions(str(certificates.authority), str(certificates.client), str(certificates.client_key))
    context = options.context()
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    lenient = TlsOptions(check_hostname=False).context()
    assert lenient.verify_mode == ssl.CERT_REQUIRED
    assert not lenient.check_hostname


def test_files_that_cannot_be_used_are_named(certificates: Certificates) -> None:
    with pytest.raises(ValueError, match="ssl_ca_certs=/no/such: No such file or directory"):
        TlsOptions("/no/such").context()
    with pytest.raises(ValueError, match=f"ssl_ca_certs={certificates.client_key}: "):
        TlsOptions(str(certificates.client_key)).context()
    with pytest.raises(ValueError, match=f"ssl_certfile={certificates.client}, ssl_keyfile=/no/such: No such file"):
        TlsOptions(certificate=str(certificates.client), key="/no/such").context()
    wrong = TlsOptions(certificate=str(certificates.client), key=str(certificates.stranger_key))
    with pytest.raises(ValueError, match=r"ssl_keyfile=.*: .*KEY_VALUES_MISMATCH|key values mismatch"):
        wrong.context()
    encrypted = TlsOptions(certificate=str(certificates.server), key=str(certificates.encrypted_key))
    with pytest.raises(ValueError, match="ssl_keyfile="):
        encrypted.context()
