"""JSON Web Key Sets as documents: which of their members are of use here. Source: RFC 7517."""

import json
from typing import Any

PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
"""The members that hold private or secret parts (RFC 7518 sections 6.2.2, 6.3.2 and 6.4.1)."""


def signing_members(jwks: str) -> list[dict[str, Any]]:
    """Return the keys of a set that are for signatures (section 4.2). Raises ValueError that says what is wrong."""
    try:
        document = json.loads(jwks)
        json.dumps(document, ensure_ascii=False).encode()  # half a surrogate pair could stand in no answer and no log
    except (ValueError, RecursionError):
        raise ValueError('is not JSON; a file is given as { file = "path" }') from None
    members = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(members, list) or not all(isinstance(member, dict) for member in members):
        raise ValueError('is not a JSON Web Key Set: {"keys": [...]}')
    signing = [member for member in members if member.get("use", "sig") == "sig"]
    if not signing:
        raise ValueError("holds no key for signatures")
    return signing
