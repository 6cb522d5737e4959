import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifyd.policy.origin import OriginPolicy, is_serialized_origin

HOSTS = st.one_of(
    st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?(\.[a-z][a-z0-9]{0,5}){0,3}", fullmatch=True),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map("[{}]".format),
)
SCHEMES = st.sampled_from(["http", "https"])
PORTS = st.none() | st.integers(1, 65535)


def serialize(scheme: str, host: str, port: int | None) -> str:
    """As a browser does: the default port is left out (RFC 6454 section 6.2)."""
    return f"{scheme}://{host}" if port in (None, {"http": 80, "https": 443}[scheme]) else f"{scheme}://{host}:{port}"


@given(SCHEMES, HOSTS, PORTS)
def test_what_browsers_send_is_recognized_and_its_own_host_allowed(scheme: str, host: str, port: int | None) -> None:
    origin = serialize(scheme, host, port)
    assert is_serialized_origin(origin)
    header = host if port is None else f"{host}:{port}"
    assert OriginPolicy(None).allows(origin, header, secure=scheme == "https")
    assert OriginPolicy((origin,)).allows(origin, "elsewhere", secure=True)


@given(SCHEMES, st.tuples(HOSTS, PORTS), st.tuples(HOSTS, PORTS), st.booleans())
def test_another_host_or_port_is_never_the_same(
    scheme: str, page: tuple[str, int | None], here: tuple[str, int | None], secure: bool
) -> None:
    (host, port), (other_host, other_port) = page, here
    default = {"http": 80, "https": 443}[scheme]
    if (host, port or default) != (other_host, other_port or default):
        header = other_host if other_port is None else f"{other_host}:{other_port}"
        assert not OriginPolicy(None).allows(serialize(scheme, host, port), header, secure)


@given(st.text(), st.text(), st.booleans())
def test_any_text_is_judged(origin: str, host: str, secure: bool) -> None:
    assert OriginPolicy(None).allows(origin, host, secure) in (True, False)
    assert OriginPolicy(("https://app.example.com",)).allows(origin, host, secure) is (
        origin == "https://app.example.com"
    )


@pytest.mark.parametrize(
    "text", ["null", "https://a", "http://a:8080", "capacitor://localhost", "app://x", "https://xn--mller-kva.example"]
)
def test_serialized(text: str) -> None:
    assert is_serialized_origin(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "https://",
        "https://A",
        "https://a/",
        "https://a:443",
        "http://a:80",
        "http://a:0",
        "http://a:65536",
        "https://ü",
        "http://a:08",
        "https://a b",
        "https://-a",
        "https://a-",
        "*",
        "https://*.a",
    ],
)
def test_not_serialized(text: str) -> None:
    assert not is_serialized_origin(text)
