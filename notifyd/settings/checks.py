"""What a single setting cannot know: the rules between settings, and the ones that are allowed but unwise."""

from collections.abc import Iterator

from notifyd.policy.origin import ANY, is_serialized_origin
from notifyd.settings.key_sets import PRIVATE_MEMBERS, signing_members
from notifyd.settings.types import (
    AuthSettings,
    HeartbeatSettings,
    ListenSettings,
    Settings,
    TokenKey,
    TracingSettings,
)
from notifyd.settings.values import Address, Network, Secret, format_duration, shown

Finding = tuple[list[str | int], str]
"""A path of keys, and what is wrong there."""

SHARED_BROKERS = frozenset(
    {"redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"}
)
LEAST_TIMEOUT_S, MOST_TIMEOUT_S = 0.05, 30.0
"""Of `broker.timeout`: less is what a busy machine takes, and for more nobody waits."""

HMAC_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}
"""The least secret for each algorithm: as long as its hash (RFC 7518 section 3.2)."""

EXPECTED_ORIGIN = (
    'expected an origin as browsers send it, such as "https://app.example.com" '
    '(lower case, no path, no default port, international names as xn--...), or "*"'
)
MIN_QUEUE_BYTES = 4096

MAX_PAYLOAD_LIMIT_BYTES = 2 * 2**20
"""A message may grow to six times its size on its way to another encoding, and a frame announces less than 16 MiB.

Source: spec/wire.md, "Data".
"""


def check_settings(settings: Settings) -> Iterator[Finding]:
    """Yield what makes the settings unusable."""
    yield from _check_node(settings)
    yield from _check_listen(settings)
    yield from _check_auth(settings.auth)
    yield from _check_heartbeat(settings.heartbeat)
    yield from _check_limits(settings)
    yield from _check_tracing(settings.tracing)


def _check_node(settings: Settings) -> Iterator[Finding]:
    if not settings.node.name.isprintable():
        yield ["node", "name"], "contains characters that cannot be printed"
    is_shared = settings.broker.url.scheme in SHARED_BROKERS
    if not is_shared and settings.broker.url.scheme != "memory":
        known = ", ".join(f"{scheme}://" for scheme in ("memory", *sorted(SHARED_BROKERS)))
        yield ["broker", "url"], f"{settings.broker.url} names no broker; there are {known}"
    if not LEAST_TIMEOUT_S <= settings.broker.timeout_s <= MOST_TIMEOUT_S:
        yield ["broker", "timeout"], "must be from 50ms to 30s"
    if settings.node.workers > 1 and not is_shared:
        yield (
            ["node", "workers"],
            f"{settings.node.workers} processes need a shared broker; memory:// is one process's own",
        )


def _check_listen(settings: Settings) -> Iterator[Finding]:
    listen = settings.listen
    addresses = {"websocket": listen.websocket, "device": listen.device, "http": listen.http}
    if not any(addresses.values()):
        yield ["listen"], "every listener is off: nobody could connect"
    seen: dict[Address, str] = {}
    for name, address in addresses.items():
        if address is None or not address.port:
            continue
        if address in seen:
            yield ["listen", name], f"{address} is also listen.{seen[address]}: each listener needs its own port"
        seen[address] = name
    if settings.debug.echo and not (listen.websocket and listen.websocket.is_loopback):
        yield ["debug", "echo"], "is allowed only while listen.websocket is a loopback address such as 127.0.0.1:7500"


def _check_auth(auth: AuthSettings) -> Iterator[Finding]:
    for place, origin in enumerate(auth.origins or ()):
        if origin != ANY and not is_serialized_origin(origin):
            yield ["auth", "origins", place], f"{EXPECTED_ORIGIN}, got {shown(origin)}"
    kids: dict[str, str] = {}
    for place, key in enumerate(auth.keys):
        path: list[str | int] = ["auth", "keys", place]
        for name, reason in _check_key(key):
            yield [*path, *name], reason
        for kid in _kids_of(key):
            if kid in kids:
                yield [*path, "kid"], f"{shown(kid)} is also the kid of {kids[kid]}: a kid names one key"
            kids[kid] = f"auth.keys[{place}]"


def _check_key(key: TokenKey) -> Iterator[Finding]:
    given = [name for name in ("secret", "public_key", "jwks") if getattr(key, name) is not None]
    if len(given) != 1:
        found = " and ".join(given) or "none of them"
        yield [], f"expected exactly one of secret, public_key and jwks, got {found}"
        return
    if given != ["jwks"] and key.algorithm is None:
        yield ["algorithm"], 'is required here and missing; write for example "HS512" or "ES256"'
        return
    if key.secret is not None:
        yield from _check_secret(key, key.secret)
    elif key.algorithm in HMAC_BYTES:
        yield [given[0]], f"{key.algorithm} needs a secret, not a public key"
    elif key.public_key is not None:
        yield from _check_public_key(key.public_key)
    else:
        yield from _check_jwks(key)


def _check_secret(key: TokenKey, secret: Secret) -> Iterator[Finding]:
    text = secret.reveal()
    if key.algorithm not in HMAC_BYTES:
        yield ["secret"], f"{key.algorithm} needs a public_key, not a secret"
    elif "-----BEGIN" in text:
        yield (
            ["secret"],
            "holds a PEM key or certificate; those belong in public_key, with an algorithm that is not HS*",
        )
    else:
        try:
            secret.key_bytes()
        except ValueError as error:
            yield ["secret"], str(error)


def _check_public_key(pem: str) -> Iterator[Finding]:
    if "PRIVATE KEY-----" in pem:
        yield ["public_key"], "is a private key; give the node the public one only (openssl pkey -in KEY -pubout)"
    elif "-----BEGIN" not in pem:
        yield ["public_key"], 'is not a PEM text ("-----BEGIN PUBLIC KEY-----"); a file is given as { file = "path" }'


def _check_jwks(key: TokenKey) -> Iterator[Finding]:
    if key.kid is not None:
        yield ["kid"], "stands in each key of the jwks, not beside it"
    try:
        members = signing_members(key.jwks or "")
    except ValueError as error:
        yield ["jwks"], str(error)
        return
    for member in members:
        if PRIVATE_MEMBERS & member.keys():
            yield ["jwks"], "holds a private or secret key; give the node the public parts only"


def _kids_of(key: TokenKey) -> list[str]:
    if key.jwks is None:
        return [] if key.kid is None else [key.kid]
    try:
        members = signing_members(key.jwks or "")
    except ValueError:
        return []
    return [member["kid"] for member in members if isinstance(member.get("kid"), str)]


def _check_heartbeat(beat: HeartbeatSettings) -> Iterator[Finding]:
    if beat.minimum_s <= 0:
        yield ["heartbeat", "minimum"], "must be above zero"
    if not beat.minimum_s <= beat.interval_s <= beat.maximum_s:
        low, high = format_duration(beat.minimum_s), format_duration(beat.maximum_s)
        own = format_duration(beat.interval_s)
        yield (
            ["heartbeat", "interval"],
            f"{own} is not between heartbeat.minimum ({low}) and heartbeat.maximum ({high})",
        )


def _check_limits(settings: Settings) -> Iterator[Finding]:
    limits = settings.limits
    if not 1 <= limits.payload_bytes <= MAX_PAYLOAD_LIMIT_BYTES:
        yield ["limits", "payload"], "must be from 1 byte to 2MiB: in another encoding it may need six times as much"
    if limits.connections.resume > limits.connections.limit:
        yield ["limits", "connections", "resume"], f"must not be above the limit of {limits.connections.limit}"
    if limits.handshake_s <= 0:
        yield ["limits", "handshake"], "must be above zero"
    if limits.queue_bytes < MIN_QUEUE_BYTES:
        yield ["limits", "queue"], "must be at least 4KiB"
    if settings.broker.memory_bytes < 2**20:
        yield ["broker", "memory"], "must be at least 1MiB"


def _check_tracing(tracing: TracingSettings) -> Iterator[Finding]:
    if tracing.endpoint is not None and not (tracing.endpoint.scheme in {"http", "https"} and tracing.endpoint.host):
        yield ["tracing", "endpoint"], 'must be a URL such as "http://127.0.0.1:4318" (OTLP over HTTP)'


def find_weaknesses(settings: Settings) -> Iterator[Finding]:
    """Yield what is allowed but unwise: `notifyd check` warns of it."""
    auth, listen = settings.auth, settings.listen
    for place, key in enumerate(auth.keys):
        least_bytes = HMAC_BYTES.get(key.algorithm or "", 0)
        if key.secret is not None and len(key.secret.key_bytes()) < least_bytes:
            reason = f"is weak: {key.algorithm} needs a random secret of at least {least_bytes} bytes"
            yield ["auth", "keys", place, "secret"], reason
    for place, api_key in enumerate(auth.api_keys):
        if len(api_key.reveal()) < 16:
            yield ["auth", "api_keys", place], "is weak: use a random text of at least 16 characters"
    if not auth.keys and not auth.anonymous:
        yield ["auth", "keys"], "is empty and anonymous is false: no client can connect"
    if auth.origins and ANY in auth.origins:
        yield ["auth", "origins"], '"*" lets every web page connect with what its visitor\'s browser holds'
    if listen.http is not None and not listen.http.is_loopback and not auth.api_keys:
        yield ["auth", "api_keys"], "is empty and listen.http is not loopback: the HTTP API refuses everyone"
    for path, networks in _trusted_networks(listen):
        for place, network in enumerate(networks):
            if network.is_everything:
                yield [*path, place], f"{network} is everybody: any client may say that it has another's address"
    exposed = [address for address in (listen.websocket, listen.device) if address and not address.is_loopback]
    if exposed and listen.tls is None:
        yield ["listen", "tls"], f"is absent: tokens and messages to {exposed[0]} travel unencrypted"


def _trusted_networks(listen: ListenSettings) -> Iterator[tuple[list[str | int], tuple[Network, ...]]]:
    """Yield the networks of proxies, each list with its path."""
    yield ["listen", "proxy_protocol", "websocket"], listen.proxy_protocol.websocket
    yield ["listen", "proxy_protocol", "device"], listen.proxy_protocol.device
    yield ["listen", "trusted_proxies"], listen.trusted_proxies
