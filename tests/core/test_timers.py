"""Timers: what happens when, and what does not."""

from broker.core.timers import Timers


class Bell:
    """Notes when it rings; rings again after `every`."""

    def __init__(self, timers: Timers, every: int | None = None) -> None:
        self.due: int | None = None
        self.rung: list[int] = []
        self._timers = timers
        self._every = every

    def on_time(self, now: int) -> None:
        """Rings."""
        self.rung.append(now)
        if self._every is not None:
            self._timers.set(self, now + self._every)


def test_each_rings_once_when_it_is_due() -> None:
    timers = Timers()
    early, late = Bell(timers), Bell(timers)
    timers.set(late, 20)
    timers.set(early, 10)
    assert timers.next == 10
    assert not timers.advance(9)
    assert not timers.advance(10)
    assert (early.rung, late.rung) == ([10], [])
    assert early.due is None
    timers.advance(30)
    assert (early.rung, late.rung) == ([10], [30])
    assert timers.next is None


def test_what_was_moved_rings_at_its_new_time_only() -> None:
    timers = Timers()
    bell = Bell(timers)
    timers.set(bell, 10)
    timers.set(bell, 30)
    timers.set(bell, 20)
    for now in range(40):
        timers.advance(now)
    assert bell.rung == [20]


def test_what_is_called_off_does_not_ring() -> None:
    timers = Timers()
    bell = Bell(timers)
    timers.set(bell, 10)
    timers.set(bell, None)
    timers.advance(50)
    assert bell.rung == []
    timers.set(bell, 60)
    timers.advance(60)
    assert bell.rung == [60]


def test_time_never_goes_back() -> None:
    timers = Timers()
    timers.advance(100)
    timers.advance(50)
    assert timers.now == 100


def test_only_so_many_happen_at_once() -> None:
    timers = Timers()
    bells = [Bell(timers) for _ in range(5)]
    for bell in bells:
        timers.set(bell, 1)
    assert timers.advance(1, most=3)
    assert sum(len(bell.rung) for bell in bells) == 3
    assert not timers.advance(1, most=3)
    assert all(bell.rung == [1] for bell in bells)


def test_one_that_sets_itself_again_goes_on() -> None:
    timers = Timers()
    bell = Bell(timers, every=10)
    timers.set(bell, 10)
    for now in range(0, 100, 5):
        timers.advance(now)
    assert bell.rung == [10, 20, 30, 40, 50, 60, 70, 80, 90]


def test_what_is_moved_again_and_again_takes_no_more_room() -> None:
    timers = Timers()
    bell, other = Bell(timers), Bell(timers)
    timers.set(other, 7)
    for due in range(100_000, 10, -1):
        timers.set(bell, due)
    assert len(timers._alarms) < 2_000
    timers.advance(11)
    assert (bell.rung, other.rung) == ([11], [11])
