"""Which attempt at a step is the last one, and which engine has a run."""

import threading
import time

import pytest

from blockwright.errors import InUse, UsageError
from blockwright.pipeline import claims
from blockwright.pipeline.images import Images
from tests.support.pipeline import docker_archive, fetch, home, request

__all__ = ["home"]
pytestmark = pytest.mark.unprivileged
RUN = "0123456789ab"


def go_on() -> None:
    """Let it be waited for."""


def test_who_is_late_does_nothing(home):
    with Images() as images:
        home_, journal = images.home, images.runs.journal
        with claims.attempt(home_, journal, RUN, 1, go_on):
            assert claims.is_held(home_, RUN)
        assert not claims.is_held(home_, RUN)
        with claims.attempt(home_, journal, RUN, 2, go_on):
            pass
        for _ in range(2):
            with (
                pytest.raises(InUse, match="another attempt has begun since"),
                claims.attempt(home_, journal, RUN, 1, go_on),
            ):
                raise AssertionError
            claims.release(journal, RUN)  # also of a run that was removed meanwhile
            assert not claims.is_claimed(journal, RUN)
        with claims.attempt(home_, journal, RUN, 2, go_on):
            assert claims.is_claimed(journal, RUN)


def test_who_waits_behind_a_later_one_is_late(home):
    """It was asleep between the note and the lock."""
    with Images() as images, Images() as others:
        home_, told = images.home, []

        def later() -> None:
            if not told:
                told.append(1)
                claims._announce(others.runs.journal, RUN, 3)
            elif len(told) == 1:
                told.append(2)
                released.set()

        released, taken = threading.Event(), threading.Event()

        def first() -> None:
            with claims.lock(home_, RUN, go_on):
                taken.set()
                released.wait(30)

        holder = threading.Thread(target=first)
        holder.start()
        assert taken.wait(30)
        with pytest.raises(InUse), claims.attempt(home_, images.runs.journal, RUN, 2, later):
            raise AssertionError
        holder.join()
        assert told == [1, 2]


def test_numbers_of_what_is_gone_are_forgotten_late(home):
    with Images() as images:
        journal = images.runs.journal
        for run, live, seen_ns in (("a", 0, 0), ("b", 1, 0), ("c", 0, time.time_ns())):
            with journal.transaction() as db:
                db.execute("INSERT INTO claim VALUES (?, 1, ?, ?)", (run, live, seen_ns))
        claims.sweep(journal)
        assert [row["run"] for row in journal.rows("SELECT run FROM claim ORDER BY run")] == ["b", "c"]
        assert claims.busy(images.home, journal, lambda _run: False) == set()
        with claims.attempt(images.home, journal, "d", 1, go_on):
            assert claims.busy(images.home, journal, lambda _run: True) == {"d"}
        assert claims.busy(images.home, journal, lambda _run: False) == {"d"}
        assert claims.busy(images.home, journal, lambda _run: True) == set()


def test_a_run_of_the_journal_is_refused_and_the_other_way_round(home, tmp_path):
    wanted = request(docker_archive(tmp_path))
    with Images() as images:
        run = fetch(wanted).run.id
        with (
            pytest.raises(UsageError, match="of its host's own journal"),
            claims.attempt(images.home, images.runs.journal, run, 1, go_on),
        ):
            raise AssertionError
        other = request(docker_archive(tmp_path, "other.tar"))
        from blockwright.pipeline.identity import identify

        with claims.attempt(images.home, images.runs.journal, other.run_of(identify(other)), 1, go_on):
            pass
        with pytest.raises(UsageError, match="is one of Temporal's"):
            fetch(other)
        assert [each.id for each in images.runs.all()] == [run]
