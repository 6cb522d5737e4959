"""The Trio client: `async with open_client(url) as client`, then publish, subscribe and ask.

```python
async with open_client("ws://127.0.0.1:7500", token=token) as client:
    await client.publish("chat:room1", {"text": "hello"})
    async with client.subscribe("chat:room1", since="earliest") as messages:
        async for message in messages:
            print(message)
```
"""

from notifyd.client.client import Client, open_client
from notifyd.client.errors import (
    AnswerLost,
    BadAddress,
    ClientClosed,
    ClientError,
    ConnectionRefused,
    ServerUnreachable,
    SubscriptionEnded,
)
from notifyd.client.feed import Feed

__all__ = [
    "AnswerLost",
    "BadAddress",
    "Client",
    "ClientClosed",
    "ClientError",
    "ConnectionRefused",
    "Feed",
    "ServerUnreachable",
    "SubscriptionEnded",
    "open_client",
]
