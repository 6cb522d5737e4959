"""A configuration centre over a scripted broker, without a node: what it lets hold is kept in `settings`.

kit = CentreKit(Layers.of(Settings()))
await kit.centre.change({"limits": {"payload": "1KiB"}}, author="ada")
assert kit.settings.limits.payload_bytes == 1024
"""

from notifyd.broker.base import Receiver
from notifyd.centre import Centre
from notifyd.clock import Clock
from notifyd.hub.hub import Hub
from notifyd.settings import Layers, Settings
from tests.kit.scripted_broker import ScriptedBroker
from tests.recorded_events import RecordedEvents

UNIX_S = 1_790_000_000.0


class CentreKit:
    """`taken` is every settings it let hold, `broker` what its changes go through."""

    def __init__(self, layers: Layers) -> None:
        self.layers = layers
        self.settings = layers.build()
        self.taken: list[Settings] = []
        self.events = RecordedEvents()
        brokers: list[ScriptedBroker] = []
        clock = Clock(monotonic_s=lambda: 0.0, unix_s=lambda: UNIX_S)

        def open_broker(receiver: Receiver) -> ScriptedBroker:
            brokers.append(ScriptedBroker(receiver, clock=clock))
            return brokers[0]

        hub = Hub(self.settings, open_broker, clock=clock, events=self.events)
        self.broker = brokers[0]
        self.centre = Centre(layers, self.broker, self._take_over, clock=clock, events=self.events)
        hub.on_configuration = self.centre.take

    def _take_over(self, settings: Settings) -> list[str]:
        self.settings = settings
        self.taken.append(settings)
        return []
