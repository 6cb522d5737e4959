"""What a parser made of its input, as a value: so that a test can hold any outcome against what was expected."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from protocol.errors import RemoteProtocolError, RequestError

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def outcome_of(
    parse: Callable[Arguments, Result], *arguments: Arguments.args, **more: Arguments.kwargs
) -> Result | RequestError | RemoteProtocolError:
    """Return what `parse` returned, or the error it is allowed to raise; any other error passes."""
    try:
        return parse(*arguments, **more)
    except (RequestError, RemoteProtocolError) as error:
        return error
