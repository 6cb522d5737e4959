"""The client's token: a fixed one, none, or one that is fetched when it is needed."""

from collections.abc import Awaitable, Callable

from notifyd.client.link import LinkClosed

Token = str | Callable[[], Awaitable[str]] | None
"""A JWT, an async function that fetches a fresh one, or None for an anonymous client."""


class TokenSource:
    """Keeps the token that is used for connecting, until it is refused or replaced."""

    def __init__(self, token: Token) -> None:
        self._fetch = token if callable(token) else None
        self._token = None if callable(token) else token

    @property
    def is_renewable(self) -> bool:
        """Whether a refused token can be replaced by a fresh one."""
        return self._fetch is not None

    async def get(self) -> str | None:
        """Return the token to connect with; raises LinkClosed when fetching it fails."""
        if self._token is None and self._fetch is not None:
            try:
                self._token = await self._fetch()
            except Exception as error:
                raise LinkClosed(f"no token could be fetched: {error!r}") from error
        return self._token

    def set(self, token: str) -> None:
        """Use this token from now on."""
        self._token = token

    def forget(self) -> None:
        """Fetch a fresh one next time: the server refused this one."""
        self._token = None
