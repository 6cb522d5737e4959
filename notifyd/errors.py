"""The errors that cross floors. Each says, to a person, what was wrong and what to do."""


class NotifydError(Exception):
    """The root of every error notifyd raises on purpose."""


class ConfigurationError(NotifydError):
    """A setting is wrong: `source` (file, variable or flag), `key` (dotted), `reason`."""

    def __init__(self, source: str, key: str, reason: str) -> None:
        super().__init__(f"{source}: {key}: {reason}" if key else f"{source}: {reason}")
        self.source = source
        self.key = key
        self.reason = reason


class ListenError(NotifydError):
    """An address cannot be listened on: in use, not allowed, or not of this machine."""


class Unauthorized(NotifydError):
    """A token is not accepted. The text is for the log; a client is told one and the same thing whatever was wrong.

    `reason` is one of a few words, for counting.
    """

    def __init__(self, message: str, reason: str = "malformed") -> None:
        super().__init__(message)
        self.reason = reason


class BrokerUnavailable(NotifydError):
    """The broker cannot be asked now. `retry_after_s` is when it may be worth trying again."""

    def __init__(self, reason: str, retry_after_s: float = 1.0) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class StreamBroken(NotifydError):
    """A socket failed or was closed by this side: nothing can be sent or received on it any more."""


def first_of(error: BaseException) -> BaseException:
    """Return the first error of a group, however deep it lies; an error that is no group is its own first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
