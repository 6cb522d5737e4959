"""The file that `notifyd init` writes: every key there is, the common ones set, the others ready to be uncommented."""

_TEXT = """\
# The configuration of a notifyd node. `notifyd check` tells whether it is right.
#
# Lines that begin with "#" and no space are settings with their defaults or an example: remove the "#" to change them.
# The environment goes before this file (NOTIFYD_BROKER__URL=..., two underscores for a level), flags before both.
# Durations: "500ms", "30s", "5m", "1h". Sizes: "64KiB" or a number of bytes. Any text can come from a file of its own:
# secret = { file = "secret.txt" }, relative to this file.

[node]
#name = "n1"                     # default: the host's name and a random part
drain = "5s"                     # over which SIGTERM spreads its clients
workers = 1                      # processes on the same ports; more than 1 needs a shared broker

[listen]                         # "" turns a listener off
websocket = "127.0.0.1:7500"     # ws://.../ws
device = "127.0.0.1:7501"        # raw frames
http = "127.0.0.1:7502"          # API, page, metrics, health
#tls = { certificate = "fullchain.pem", key = "key.pem", client_ca = "ca.pem" }
                                 # for websocket and device; client_ca may be left out, with it every client needs a
                                 # certificate signed by it
# Behind proxies, whose addresses are given as networks ("10.0.0.0/8") or alone ("10.0.0.1"); see spec/operating.md:
#proxy_protocol = { websocket = ["10.0.0.1"], device = ["10.0.0.1"] }
                                 # connections of these begin with a PROXY header, version 1 or 2
#trusted_proxies = ["10.0.0.1"]   # whose X-Forwarded-For is believed

[broker]
url = "memory://"                # the embedded broker: no other program needed
prefix = "notifyd"               # before every key in a shared broker
memory = "256MiB"                # the most the embedded broker keeps; then the oldest messages go first
# A shared broker makes many nodes one: "redis://user:password@host:6379/0", "rediss://..." with TLS, "unix:///path",
# "redis+sentinel://h1:26379,h2:26379/service/0", "redis+cluster://h1:6379,h2:6379".
timeout = "800ms"                # a shared broker that does not answer within this time counts as away
replicas = 0                     # so many of its replicas must have a message before it is acknowledged

[auth]
anonymous = false                # true: clients without a token may do what "anyone" allows
#origins = ["https://app.example.com"]   # browsers' Origin; "*" for any; absent: pages of the same host only
#issuer = "https://login.example.com"    # where set, a token without it is refused
#audience = "notifyd"            # likewise
leeway = "0s"                    # for clocks that differ: a token is accepted so long after it expired
api_keys = ["@API_KEY@"]         # for the HTTP API: Authorization: Bearer ...

[[auth.keys]]                    # tokens: this node signs (`notifyd token`) and verifies with it
algorithm = "HS512"
secret = "@SECRET@"
kid = "@KID@"                    # to change the secret, add a second key with another kid, later remove this one

#[[auth.keys]]                    # tokens that somebody else signs: RS*, PS*, ES* or EdDSA, with the public key (PEM)
#algorithm = "ES256"
#public_key = { file = "login.pem" }
#kid = "login"

#[[auth.keys]]                    # or a JSON Web Key Set
#jwks = { file = "jwks.json" }

[heartbeat]
interval = "30s"
misses = 2                       # so many missed in a row: the client is lost
floor = "10s"                    # least adaptive timeout
minimum = "1s"                   # what a client may ask for
maximum = "1h"

[limits]
payload = "64KiB"                # of one message
connections = { limit = 10000, resume = 9000 }   # above limit refuse, until below resume
connects = { rate = 500, burst = 100 }    # a crowd that comes back is let in one after the other
handshake = "10s"
queue = "1MiB"                   # unsent bytes a connection may hold
messages = { rate = 100, burst = 200 }           # requests a second of a connection
#user_messages = { rate = 200, burst = 400 }      # and of all connections of a named user together

[sessions]
ttl = "5m"                       # resumable for so long after the connection ended

# Topics: the first entry that matches holds; for the others there is a last one of these defaults.
#[[topics]]
#match = "orders:*"               # * is one part, ** the rest
#history = 1000                   # messages kept; 0 keeps none
#ttl = "1h"                       # how long they are kept
#presence = true                  # clients may ask who is subscribed
#joins = false                    # push joined and left
#overflow = "disconnect"          # of a slow client's queue; or "gap", "drop_oldest", "latest"
#trace = false                    # tell subscribers the trace of each message, where its publisher gave one
#publish = "token"                # "token": whom a token allows; "anyone"; "service": HTTP API only
#subscribe = "token"              # likewise

[tracing]                        # OpenTelemetry; needs: pip install 'notifyd[tracing]'
#endpoint = "http://127.0.0.1:4318"       # a collector, by OTLP over HTTP; absent: no spans, at no cost
ratio = 0.0                      # the share of publishes without a traceparent that begin a trace
service = "notifyd"              # service.name of the spans

[log]
level = "info"                   # the least that is logged: "debug", "info", "warning" or "error"
format = "auto"                  # "json", "text", or "auto": text for a terminal, JSON for anything else

[debug]
echo = false                     # serve /echo for conformance suites; loopback only
"""


def write_template(*, secret: str, kid: str, api_key: str) -> str:
    """Return the file's text with these secrets in it; they must be free of quotes and backslashes."""
    text = _TEXT
    for mark, value, width in (("@SECRET@", secret, 0), ("@KID@", kid, 0), ("@API_KEY@", api_key, 0)):
        text = text.replace(mark, value.ljust(width))
    return text
