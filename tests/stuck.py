"""A guard of real time around a test: one that is stuck fails with its name and the tree of its tasks.

Two stages, both by SIGALRM in the main thread: first the test is cancelled, which leaves Trio whole; if that does not
help (a shield, a loop without a checkpoint), an exception is raised wherever the main thread is.
"""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import pytest
import trio

GRACE_S = 2.0
"""What a cancelled test gets before it is ended by force."""


class Stuck(BaseException):
    """Not an Exception: Hypothesis must not take it for a finding and try it again."""


@contextmanager
def guarded(name: str, limit_s: float) -> Iterator[None]:
    """Fail what runs in the block when it takes more than `limit_s` real seconds."""
    pictures: list[str] = []

    def ring(_number: int, frame: FrameType | None) -> None:
        if pictures or not _cancel_main_task(pictures):
            pictures.append(f"main thread at {_place(frame)}")
            raise Stuck
        signal.setitimer(signal.ITIMER_REAL, GRACE_S)

    earlier = signal.signal(signal.SIGALRM, ring)
    left_s, _ = signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        yield
    except BaseException:
        if not pictures:
            raise
    finally:
        signal.signal(signal.SIGALRM, earlier)
        signal.setitimer(signal.ITIMER_REAL, left_s)
    if pictures:
        told = f"{name} was stuck: not done after {limit_s:g} s of real time\n" + "\n".join(pictures)
        raise pytest.fail.Exception(told, pytrace=False) from None


def _cancel_main_task(pictures: list[str]) -> bool:
    """Cancel Trio's main task after taking a picture of all tasks; False where Trio does not run."""
    try:
        root = trio.lowlevel.current_root_task()
    except RuntimeError:
        return False
    if root is None or not root.child_nurseries:
        return False
    main_task_nursery = root.child_nurseries[-1]  # Trio's own tasks are in the nurseries before it
    for main_task in main_task_nursery.child_tasks:
        pictures.extend(_tree(main_task, 0))
    trio.lowlevel.current_trio_token().run_sync_soon(main_task_nursery.cancel_scope.cancel)
    return True


def _tree(task: trio.lowlevel.Task, depth: int) -> Iterator[str]:
    frames = [_place(frame, line) for frame, line in task.iter_await_frames()]
    own = [place for place in frames if "/site-packages/" not in place and "/lib/python" not in place]
    yield f"{'  ' * depth}{task.name} at {' > '.join(own[-3:] or frames[-1:]) or 'its beginning'}"
    for nursery in task.child_nurseries:
        for child in sorted(nursery.child_tasks, key=lambda child: child.name):
            yield from _tree(child, depth + 1)


def _place(frame: FrameType | None, line: int | None = None) -> str:
    if frame is None:
        return "an unknown place"
    prefix = f"{sys.path[0]}/"
    return f"{frame.f_code.co_filename.removeprefix(prefix)}:{line or frame.f_lineno}"
