"""What waits and what works on a virtual clock."""

import pytest

from jobs.predict.timeline import Timeline


class Watched:
    """A timeline, and when its actions came."""

    def __init__(self, cores: float | None = None):
        self.timeline, self.came = Timeline(cores), dict[str, float]()

    def note(self, name: str):
        return lambda: self.came.update({name: pytest.approx(self.timeline.now)})

    def play(self) -> dict[str, float]:
        while self.timeline.step():
            pass
        return self.came


def test_pieces_that_share_a_core_get_on_alike():
    watched = Watched(cores=1)
    watched.timeline.work(10, watched.note("short"))
    watched.timeline.work(20, watched.note("long"))
    assert watched.play() == {"short": 20, "long": 30}
    assert watched.timeline.worked == pytest.approx(20)


def test_a_piece_takes_one_core_at_most():
    watched = Watched(cores=2)
    for name in ("a", "b", "c"):
        watched.timeline.work(10, watched.note(name))
    assert watched.play() == {"a": 15, "b": 15, "c": 15}
    assert Watched(cores=2).timeline.step() is False
    alone = Watched(cores=2)
    alone.timeline.work(10, alone.note("a"))
    assert alone.play() == {"a": 10}


def test_waits_do_not_share():
    watched = Watched(cores=1)
    watched.timeline.work(10, watched.note("work"))
    watched.timeline.after(10, watched.note("first"))
    watched.timeline.after(30, watched.note("second"))
    assert watched.play() == {"work": 10, "first": 10, "second": 30}


def test_what_is_called_off_leaves_its_core_to_the_others():
    watched = Watched(cores=1)
    lost = watched.timeline.work(10, watched.note("lost"))
    watched.timeline.work(10, watched.note("kept"))
    watched.timeline.after(8, lambda: watched.timeline.call_off(lost))
    watched.timeline.after(9, lambda: watched.timeline.call_off(lost))
    assert watched.play() == {"kept": 14}


def test_what_begins_later_joins():
    watched = Watched(cores=1)
    watched.timeline.work(10, watched.note("first"))
    watched.timeline.after(5, lambda: watched.timeline.work(10, watched.note("second")))
    assert watched.play() == {"first": 15, "second": 20}
