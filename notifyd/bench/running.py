"""Running a load: the processes, their phases, and what they found."""

import secrets
import time
from collections.abc import Callable

import trio

from notifyd.bench.crew import Crew, open_crew
from notifyd.bench.load import Load, Scenario
from notifyd.bench.orders import LoadPlan, LoadSnapshot, LoadStep
from notifyd.bench.report import LoadReport, Sample
from notifyd.bench.sampling import Sampler, busiest, merged
from notifyd.bench.saturation import why_saturated
from notifyd.bench.target import Site, open_site
from notifyd.bench.vitals import Usage
from notifyd.errors import NotifydError, first_of

ANSWERS_S = 10.0
"""What is waited for answers and deliveries when nothing more is sent."""

STILL_S = 2.0
"""Deliveries of which none has come for so long do not come any more."""


async def run_load(
    load: Load, *, on_sample: Callable[[Sample], None] = lambda _: None, interrupted: trio.Event | None = None
) -> LoadReport:
    """Run a load to its end and report it; `on_sample` hears of every interval (0.25 s).

    Once `interrupted` is set, it ends early with what was measured so far. Cancelled, there is no report. Whatever
    happens, every process that it started is ended and reaped. Raises NotifydError that says what to do.
    """
    try:
        async with open_site(load) as site:
            return await _Run(load, site, on_sample).run(trio.Event() if interrupted is None else interrupted)
    except BaseExceptionGroup as group:
        foreseen = group.subgroup(NotifydError)
        if foreseen is None:
            raise
        raise first_of(foreseen) from None


class _Run:
    """One load on its way: when each phase began and ended."""

    def __init__(self, load: Load, site: Site, on_sample: Callable[[Sample], None]) -> None:
        self._load = load
        self._site = site
        self._started_ms = int(time.time() * 1000)
        self._sampler = Sampler(site.vitals, on_sample, time.monotonic_ns())
        self._phases: dict[str, float] = {}
        self._measure_ns = 0
        """When the measured part began; 0 before."""
        self._quiet_ns = 0
        self._at_quiet: tuple[list[LoadSnapshot], Usage | None] | None = None
        self._idle_usage: Usage | None = None
        self._connected_usage: Usage | None = None
        self._connected = 0

    async def run(self, interrupted: trio.Event) -> LoadReport:
        count = self._load.process_count
        run = secrets.token_hex(4)
        plans = [LoadPlan(self._load, self._site.target, run, number, count) for number in range(count)]
        async with open_crew(plans, lambda crew: self._sampler.take(crew.snapshots)) as crew:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_once, interrupted, nursery.cancel_scope)
                await self._run_phases(crew)
                nursery.cancel_scope.cancel()
            return self._report(crew)

    # --- phases -------------------------------------------------------------------------------------------------------

    async def _run_phases(self, crew: Crew) -> None:
        self._idle_usage = self._site.vitals.usage
        match self._load.scenario:
            case Scenario.CONNECT:
                await self._measure(crew)
                await self._until_done(crew, "measure", LoadStep.CONNECT)
                self._note_connected(crew)
                self._note_quiet(crew)
            case Scenario.RECOVERY:
                await self._connect(crew)
                await self._until_done(crew, "cut", LoadStep.CUT)
                await self._until_done(crew, "miss", LoadStep.MISS)
                await self._measure(crew)
                await self._until_done(crew, "recover", LoadStep.RECOVER)
                self._note_quiet(crew)
            case _:
                await self._connect(crew)
                await self._load_for_a_time(crew)

    async def _connect(self, crew: Crew) -> None:
        await self._until_done(crew, "connect", LoadStep.CONNECT)
        self._note_connected(crew)

    def _note_connected(self, crew: Crew) -> None:
        """Raise NotifydError where there is nothing to measure with."""
        snapshots = _told(crew)
        self._connected = sum(snapshot.connections for snapshot in snapshots)
        self._connected_usage = self._site.vitals.usage
        if not self._connected:
            _, errors = merged(snapshots)
            seen = ", ".join(f"{kind} ({count} times)" for kind, count in errors.items())
            raise NotifydError(f"notifyd bench: none of the connections to {self._site.url} could be opened: {seen}")

    async def _until_done(self, crew: Crew, phase: str, step: LoadStep) -> None:
        self._sampler.phase = phase
        began_ns = await crew.begin(step)
        self._measure_ns = self._measure_ns and began_ns
        self._phases[phase] = 0.0
        done_ns = await crew.wait_done()
        self._phases[phase] = (done_ns - began_ns) / 1e9

    async def _measure(self, crew: Crew) -> None:
        self._sampler.phase = "measure"
        self._measure_ns = await crew.begin(LoadStep.MEASURE)

    async def _load_for_a_time(self, crew: Crew) -> None:
        if self._load.warm_up_s:
            self._sampler.phase = "warm-up"
            await crew.begin(LoadStep.LOAD)
            await trio.sleep(self._load.warm_up_s)
            self._phases["warm-up"] = self._load.warm_up_s
            await self._measure(crew)
        else:
            await self._measure(crew)
            self._measure_ns = await crew.begin(LoadStep.LOAD)
        await trio.sleep(self._load.seconds)
        self._note_quiet(crew)
        self._sampler.phase = "drain"
        await crew.begin(LoadStep.QUIET)
        with trio.move_on_after(ANSWERS_S):
            await crew.wait_done()
            await _wait_delivered(crew)

    def _note_quiet(self, crew: Crew) -> None:
        """Note what everybody used in the measured part: it ends here."""
        self._quiet_ns = time.monotonic_ns()
        self._at_quiet = (_told(crew), self._site.vitals.usage)

    # --- the report ---------------------------------------------------------------------------------------------------

    def _report(self, crew: Crew) -> LoadReport:
        load, snapshots = self._load, _told(crew)
        has_begun = bool(self._sampler.began)
        histogram, errors = merged(snapshots)
        operations = sum(snapshot.operations for snapshot in snapshots) if has_begun else 0
        seconds = self._seconds(snapshots) if has_begun else 0.0
        self._phases["recover" if load.scenario is Scenario.RECOVERY else "measure"] = seconds
        undelivered = sum(snapshot.expected - snapshot.arrived for snapshot in snapshots)
        if self._at_quiet is not None and load.scenario in (Scenario.FANOUT, Scenario.TOPICS) and undelivered:
            errors["not delivered" if undelivered > 0 else "delivered twice"] = abs(undelivered)
        at_quiet, usage = self._at_quiet or (snapshots, self._site.vitals.usage)
        exhausted = next((snapshot.exhausted for snapshot in snapshots if snapshot.exhausted), None)
        load_cpu = busiest(list(zip(at_quiet, self._sampler.began, strict=False)))
        sent, late = (sum(getattr(snapshot, name) for snapshot in snapshots) for name in ("sent", "late"))
        return LoadReport(
            scenario=load.scenario.value,
            unit=load.nature.unit,
            url=self._site.url,
            encoding=load.encoding,
            processes=load.process_count,
            options=_options(load),
            started_ms=self._started_ms,
            connections=self._connected or sum(snapshot.connections for snapshot in snapshots),
            operations=operations,
            seconds=seconds,
            rate=operations / seconds if seconds else 0.0,
            latency=histogram.percentiles() if has_begun else None,
            histogram=histogram.buckets() if has_begun else [],
            phases=self._phases,
            errors=errors,
            saturated=why_saturated(load_cpu, sent, late, exhausted),
            server_cpu=None if usage is None else usage.share_since(self._sampler.first_usage),
            server_memory_bytes=None if usage is None else usage.memory_bytes,
            samples=self._sampler.samples,
            connection_memory_bytes=self._connection_memory_bytes(),
        )

    def _seconds(self, snapshots: list[LoadSnapshot]) -> float:
        """Return how long was measured: to the last operation where there is an end to it, else to the end."""
        last_ns = max(snapshot.last_ns for snapshot in snapshots)
        end_ns = self._quiet_ns if self._load.scenario is Scenario.IDLE or not last_ns else last_ns
        return max(0.0, ((end_ns or time.monotonic_ns()) - self._measure_ns) / 1e9)

    def _connection_memory_bytes(self) -> int | None:
        before, after = self._idle_usage, self._connected_usage
        if before is None or after is None or not self._connected:
            return None
        return max(0, (after.memory_bytes - before.memory_bytes) // self._connected)


def _told(crew: Crew) -> list[LoadSnapshot]:
    return [snapshot for snapshot in crew.snapshots if snapshot is not None]


def _options(load: Load) -> dict[str, int | float | str]:
    """Return what was asked for, and what was taken where nothing was."""
    nature = load.nature
    options: dict[str, int | float | str] = {"connections": nature.connections, "in_flight": nature.in_flight}
    for name in ("publishers", "topics"):
        if getattr(nature, name):
            options[name] = getattr(nature, name)
    if load.rate is not None:
        options["rate"] = load.rate
    options |= {"seconds": load.seconds, "payload_bytes": load.payload_bytes, "heartbeat_s": load.heartbeat_s}
    if load.scenario is Scenario.RECOVERY:
        options["missed"] = load.missed
    return options | ({} if load.broker is None else {"broker": load.broker.partition("://")[0]}) | load.settings


async def _cancel_once(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


async def _wait_delivered(crew: Crew) -> None:
    """Wait until all that was accepted is delivered, or nothing comes any more."""
    arrived, since_s = -1, trio.current_time()
    while True:
        snapshots = _told(crew)
        now_arrived = sum(snapshot.arrived for snapshot in snapshots)
        if now_arrived >= sum(snapshot.expected for snapshot in snapshots):
            return
        if now_arrived != arrived:
            arrived, since_s = now_arrived, trio.current_time()
        elif trio.current_time() - since_s > STILL_S:
            return
        await crew.wait_told()
