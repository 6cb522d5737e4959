"""`notifyd config`."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from notifyd.cli.node_api import (
    CLUSTER_TIMEOUT_S,
    DEFAULT_HTTP_URL,
    ApiKeyOption,
    HttpUrlOption,
    ask_node,
    refusal,
)
from notifyd.text import printable

if TYPE_CHECKING:
    from notifyd.listeners.http.configuring import ConfigurationAnswer, VersionAnswer

Action = Literal["get", "set", "unset", "history", "rollback"]

COMMAND = "notifyd config"


def config(
    action: Annotated[Action, typer.Argument(help="What to do.", show_choices=True)] = "get",
    words: Annotated[list[str] | None, typer.Argument(metavar="[KEY|KEY=VALUE|VERSION]…", help="Of what.")] = None,
    *,
    url: HttpUrlOption = DEFAULT_HTTP_URL,
    api_key: ApiKeyOption = None,
    author: Annotated[
        str | None, typer.Option("--author", metavar="NAME", help="Who changes it; user@host if not given.")
    ] = None,
    if_version: Annotated[
        int | None, typer.Option("--if-version", metavar="N", min=0, help="Only while this version is the newest.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, max=1000, help="Of history.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print the node's answer as JSON.")] = False,
) -> None:
    """Look at the settings of a running node, and change them on every node of its cluster.

    get [KEY]: those in force. set KEY=VALUE…: change them, as in the file (limits.payload=1MiB). unset KEY…: let each
    node's own configuration hold again. history: who changed what. rollback VERSION: go back (0: to no change at all).
    """
    given = words or []
    if action == "history":
        _expect(given, 0, 0, "history takes no further words")
        lines = _history(_ask(url, api_key, f"/v1/config/history?limit={limit}"), as_json=as_json)
    elif action == "get":
        _expect(given, 0, 1, "get takes one key, or none for all")
        lines = _shown(_ask(url, api_key, "/v1/config"), given, as_json=as_json)
    else:
        path, method, body = _change(action, given)
        headers = {"X-Author": (_own_name() if author is None else author).encode()}
        if if_version is not None:
            headers["If-Match"] = b"%d" % if_version
        lines = _changed(_ask(url, api_key, path, body, method=method, headers=headers), as_json=as_json)
    for line in lines:
        print(line)


def _expect(words: list[str], least: int, most: int, problem: str) -> None:
    if not least <= len(words) <= most:
        raise typer.BadParameter(problem)


def _change(action: Action, words: list[str]) -> tuple[str, str, Any]:
    """Return path, method and body of a change. Raises BadParameter."""
    if action == "rollback":
        _expect(words, 1, 1, "rollback takes one version; `notifyd config history` lists them")
        if not words[0].isdecimal():
            raise typer.BadParameter(f"{words[0]!r} is no version; `notifyd config history` lists them")
        return "/v1/config/rollback", "POST", {"version": int(words[0])}
    patch: dict[str, Any] = {}
    for key, value in map(_assignment, words) if action == "set" else ((word, None) for word in words):
        _put(patch, key.split("."), value)
    if not patch:
        raise typer.BadParameter(f"{action} takes {'KEY=VALUE' if action == 'set' else 'a key'}, one or more")
    return "/v1/config", "PATCH", patch


def _assignment(word: str) -> tuple[str, Any]:
    from notifyd.settings.loading import read_value

    key, separator, text = word.partition("=")
    if not separator or not key.strip():
        raise typer.BadParameter(f"{word!r} is not KEY=VALUE, such as limits.payload=1MiB")
    return key.strip(), read_value(key.strip().split("."), text.strip())


def _put(patch: dict[str, Any], keys: list[str], value: Any) -> None:
    *tables, last = keys
    for name in tables:
        patch = patch.setdefault(name, {})
        if not isinstance(patch, dict):
            raise typer.BadParameter(f"{'.'.join(keys)} is inside of another key that is given")
    patch[last] = value


def _ask(url: str, api_key: str | None, path: str, body: Any = None, **how: Any) -> bytes:
    """Ask the node; return the body of its answer. Raises NotifydError that says what is wrong."""
    status, answer = ask_node(COMMAND, url, api_key, path, body, timeout_s=CLUSTER_TIMEOUT_S, **how)
    if status != 200:
        raise refusal(COMMAND, url, status, answer)
    return answer


def _own_name() -> str:
    """Say who runs this command, as far as it is known."""
    import getpass
    import socket

    name = "somebody"
    with contextlib.suppress(KeyError, OSError):
        name = getpass.getuser()
    return f"{name}@{socket.gethostname()}"


def _read(answer: bytes) -> "ConfigurationAnswer":
    import msgspec

    from notifyd.errors import NotifydError
    from notifyd.listeners.http.configuring import ConfigurationAnswer

    try:
        return msgspec.json.decode(answer, type=ConfigurationAnswer)
    except msgspec.DecodeError:
        raise NotifydError(f"{COMMAND}: what answered is no node: it has no configuration") from None


def _shown(answer: bytes, key: list[str], *, as_json: bool) -> Iterator[str]:
    """Yield the settings in force, a line each; of one key, its value alone."""
    found = _read(answer)
    value: Any = found.settings
    for name in key[0].split(".") if key else ():
        if not isinstance(value, dict) or name not in value:
            raise typer.BadParameter(f"there is no setting {key[0]!r}")
        value = value[name]
    if as_json:
        yield _json(value if key else found)
        return
    if not key:
        yield f"# {_state(found)}"
    if isinstance(value, dict):
        yield from _assignments(value, key[0].split(".") if key else [], found.overlay)
    else:
        yield printable(_json(value))


def _assignments(table: dict[str, Any], path: list[str], overlay: Any) -> Iterator[str]:
    for name, value in table.items():
        place = [*path, name]
        if isinstance(value, dict):
            yield from _assignments(value, place, overlay)
        else:
            yield f"{'.'.join(place)} = {printable(_json(value))}{'  # centre' if _is_in(overlay, place) else ''}"


def _is_in(overlay: Any, path: list[str]) -> bool:
    for name in path:
        if not isinstance(overlay, dict) or name not in overlay:
            return False
        overlay = overlay[name]
    return True


def _changed(answer: bytes, *, as_json: bool) -> Iterator[str]:
    found = _read(answer)
    yield _json(found) if as_json else _state(found)


def _state(found: "ConfigurationAnswer") -> str:
    """Say in a line which version holds."""
    state = f"version {found.version} is in force"
    if not found.stored:
        state += "; it is kept in the node alone, until that ends"
    if found.problem is not None:
        state += f"; version {found.newest} is not, here: {printable(found.problem)}"
    return state


def _history(answer: bytes, *, as_json: bool) -> Iterator[str]:
    import msgspec

    from notifyd.errors import NotifydError
    from notifyd.listeners.http.configuring import VersionsAnswer

    try:
        found = msgspec.json.decode(answer, type=VersionsAnswer)
    except msgspec.DecodeError:
        raise NotifydError(f"{COMMAND}: what answered is no node: it has no versions") from None
    if as_json:
        yield _json(found)
        return
    yield from map(_describe, found.versions)
    if found.more:
        yield "… and older ones (--limit)"


def _describe(version: "VersionAnswer") -> str:
    from datetime import UTC, datetime

    when = datetime.fromtimestamp(version.time / 1000, UTC)
    overlay = printable(_json(version.overlay))
    back = f" (back to {version.restores})" if isinstance(version.restores, int) else ""
    return f"{version.version}  {when:%Y-%m-%d %H:%M:%S} UTC  {printable(version.author)}{back}  {overlay}"


def _json(value: Any) -> str:
    import msgspec

    return msgspec.json.encode(value).decode()
