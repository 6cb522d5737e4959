"""The handshake of a link: RESP3, who we are, which database; and what the server says that it is.

What a server answers to credentials is never repeated: an old one puts them into its error.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from notifyd.broker.redis.link import Greet, Link, LinkLost
from notifyd.broker.redis.target import Credentials

OLDEST_VERSION = (6, 2, 0)

_NO_ID = "0" * 40

Role: TypeAlias = Literal["master", "replica", "sentinel"]

_ROLES: Mapping[str, Role] = {"master": "master", "slave": "replica"}


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What a server is, by its INFO.

    `replication_id` names the line of writes it continues, `previous_replication_id` the one it continued before it was
    promoted ("" where it never was). `run_id` is another after each restart. The replication id of a master changes
    while it runs, too: when its first replica comes, or its last one has been away for long (repl-backlog-ttl).
    `is_durable` says that a restart loses nothing it has acknowledged: every write is on its disk before (`appendfsync
    always`). With `everysec` it may lose some seconds, even when only its process is killed.
    """

    version: tuple[int, int, int]
    role: Role
    replication_id: str
    previous_replication_id: str
    run_id: str
    is_durable: bool = False

    def refreshed(self, information: bytes) -> "ServerInfo":
        """Return what holds after another `INFO replication`; what that leaves out stays."""
        fields = parse_information(information)
        if "role" not in fields:
            return self
        return replace(
            self,
            role=_role(fields),
            replication_id=fields.get("master_replid", self.replication_id),
            previous_replication_id=_previous(fields),
        )


def greeting(
    credentials: Credentials | None = None,
    *,
    database: int = 0,
    client_name: str = "notifyd",
    role: Role | None = "master",
) -> Greet:
    """Make a greeting that authenticates, selects the database and accepts only a server in this role (None: any).

    `client_name` is what CLIENT LIST shows: no white space. The greeting raises LinkLost with what to do.
    """

    async def greet(link: Link) -> ServerInfo:
        await _say_hello(link, credentials or Credentials(), client_name)
        try:
            if database:
                await link.execute_unready("SELECT", database)
            fields = parse_information(await link.execute_unready("INFO"))
            is_durable = fields.get("aof_enabled") == "1" and await _syncs_always(link)
        except NoPermissionError as error:
            raise LinkLost(f"the user lacks a right that notifyd needs: {error}") from None
        except RedisError as error:
            raise LinkLost(f"the server refused to be greeted: {error}") from None
        server = replace(_server(fields), is_durable=is_durable)
        _check(server, fields, role)
        return server

    return greet


async def _syncs_always(link: Link) -> bool:
    """Ask how the append-only file is synchronized. Where that may not be asked, the worst is assumed."""
    try:
        return b"always" in (await link.execute_unready("CONFIG", "GET", "appendfsync")).values()
    except RedisError:
        return False


async def _say_hello(link: Link, credentials: Credentials, client_name: str) -> None:
    login = ("AUTH", credentials.username or "default", credentials.password) if credentials else ()
    try:
        await link.execute_unready("HELLO", 3, *login, "SETNAME", client_name)
    except (AuthenticationError, NoPermissionError) as error:
        raise LinkLost(_refusal(error, credentials)) from None
    except RedisError as error:
        text = str(error)
        if "unknown command" in text or "NOPROTO" in text:
            raise LinkLost(_too_old("before 6.0")) from None
        raise LinkLost(f"the server refused to be greeted: {_without_secrets(text, credentials)}") from None


def _refusal(error: RedisError, credentials: Credentials) -> str:
    if not credentials and isinstance(error, AuthenticationError):
        return "the server asks for a password: put one into broker.url, as in redis://user:password@host:port"
    if isinstance(error, NoPermissionError):
        return f"the user lacks a right that notifyd needs: {_without_secrets(str(error), credentials)}"
    return "the server refused the user or the password: check those in broker.url"


def _without_secrets(text: str, credentials: Credentials) -> str:
    return text.replace(credentials.password, "(withheld)") if credentials.password else text


def _too_old(version: str) -> str:
    return f"the server is Redis {version}, and notifyd needs 6.2 or newer"


def _server(fields: Mapping[str, str]) -> ServerInfo:
    version = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", fields.get("redis_version", ""))
    if version is None:
        raise LinkLost("the server does not tell its version in INFO")
    return ServerInfo(
        version=(int(version[1]), int(version[2]), int(version[3] or 0)),
        role=_role(fields),
        replication_id=fields.get("master_replid", ""),
        previous_replication_id=_previous(fields),
        run_id=fields.get("run_id", ""),
    )


def _check(server: ServerInfo, fields: Mapping[str, str], role: Role | None) -> None:
    if server.version < OLDEST_VERSION:
        raise LinkLost(_too_old(".".join(map(str, server.version))))
    if fields.get("loading", "0") != "0":
        raise LinkLost("the server is loading its data")
    if role is not None and server.role != role:
        hint = ": with Sentinels, name those in broker.url" if server.role == "replica" else ""
        raise LinkLost(f"the server is a {server.role}, not a {role}{hint}")


def _role(fields: Mapping[str, str]) -> Role:
    if fields.get("redis_mode") == "sentinel":
        return "sentinel"
    return _ROLES.get(fields.get("role", "master"), "replica")


def _previous(fields: Mapping[str, str]) -> str:
    previous = fields.get("master_replid2", _NO_ID)
    return "" if previous == _NO_ID else previous


def parse_information(information: bytes) -> dict[str, str]:
    """Read the lines of an INFO."""
    lines = (line.partition(":") for line in information.decode(errors="replace").splitlines())
    return {name: value.strip() for name, separator, value in lines if separator}
