"""Intents, leases, tallies and versions, by one process, several, and dead ones."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading

import pytest

from blockwright import marks
from blockwright.errors import Corrupt, InUse, NoSpace, Unsupported
from blockwright.journal import BUCKETS_S, Journal, Part
from blockwright.owner import Owner

THINGS = Part("things", (("CREATE TABLE thing (name TEXT PRIMARY KEY)",),))


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "journal.db")


@pytest.fixture
def journal(path):
    with Journal(path, [THINGS]) as found:
        yield found


def test_it_is_written_ahead_synced_and_nobody_elses(journal, path):
    assert journal.rows("PRAGMA journal_mode")[0][0] == "wal"
    assert journal.rows("PRAGMA synchronous")[0][0] == 2
    assert os.stat(path).st_mode & 0o077 == 0


def test_an_intent_lasts_until_it_is_settled(journal, path):
    made = journal.intend("make", "x", {"size": 3})
    with Journal(path, [THINGS]) as other:
        assert other.intents() == [made]
        assert not made.abandoned
    with journal.transaction() as db:
        db.execute("INSERT INTO thing VALUES ('x')")
        journal.settle(made, "done")
    assert journal.intents() == []
    assert [(each.operation, each.outcome, each.count) for each in journal.tallies()] == [("make", "done", 1)]


def test_result_and_intent_are_one(journal):
    made = journal.intend("make", "x", {})

    def half() -> None:
        with journal.transaction() as db:
            db.execute("INSERT INTO thing VALUES ('x')")
            journal.settle(made, "done")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half()
    assert journal.intents() == [made]
    assert journal.rows("SELECT * FROM thing") == []
    assert journal.tallies() == []


def test_an_interrupt_right_behind_the_beginning_leaves_no_transaction(journal):
    database = journal._db

    class Interrupted:
        def __getattr__(self, name):
            return getattr(database, name)

        def execute(self, query, *values):
            found = database.execute(query, *values)
            if query.startswith("BEGIN"):
                raise KeyboardInterrupt
            return found

    journal._db = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        journal.intend("make", "x", {})
    journal._db = database
    assert not database.in_transaction
    journal.intend("make", "y", {})
    assert [each.subject for each in journal.intents()] == ["y"]


def test_what_a_dead_process_intended_is_abandoned(journal, path):
    code = "import sys; from blockwright.journal import Journal; Journal(sys.argv[1]).intend('make', 'x', {})"
    subprocess.run([sys.executable, "-c", code, path], check=True)
    (found,) = journal.intents()
    assert found.abandoned
    mine = journal.take_over(found)
    assert not mine.abandoned
    journal.abandon(mine, "no luck")
    (again,) = journal.intents()
    assert (again.abandoned, again.trouble) == (True, "no luck")


def test_a_lease_is_held_by_one_and_its_number_grows(journal):
    first = journal.take("x", {"at": 1})
    with pytest.raises(InUse, match=f"process {os.getpid()}"):
        journal.take("x")
    journal.check(first)
    assert journal.leases() == [first]
    journal.give_back(first)
    assert journal.leases() == []
    second = journal.take("x")
    assert second.token == first.token + 1
    with pytest.raises(InUse, match="taken by another"):
        journal.check(first)
    journal.give_back(first)
    journal.check(second)


def test_a_dead_ones_lease_is_taken_over_and_fenced(journal, path):
    code = (
        "import sys, time; from blockwright.journal import Journal\n"
        "Journal(sys.argv[1]).take('x'); print(flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(InUse, match=f"process {other.pid}"):
            journal.take("x")
        (theirs,) = journal.leases()
        other.send_signal(signal.SIGKILL)
        other.wait()
    mine = journal.take("x")
    assert mine.token == theirs.token + 1
    assert mine.owner == Owner.current()
    with pytest.raises(InUse):
        journal.check(theirs)


def test_threads_take_turns(journal):
    failed = []

    def work(number):
        try:
            for each in range(20):
                journal.settle(journal.intend("w", f"{number}.{each}", {}), "done")
        except Exception as error:  # noqa: BLE001 - told below
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert failed == []
    assert sum(each.count for each in journal.tallies()) == 80


def test_another_connection_of_this_process_keeps_its_locks(journal, path):
    """Closing any descriptor of the file would end them: another process would then take itself for the last user."""
    journal.settle(journal.intend("x", "y", {}), "done")
    Journal(path, [THINGS]).close()
    code = "import sys; from blockwright.journal import Journal; Journal(sys.argv[1]).count('x', 'done', 1)"
    subprocess.run([sys.executable, "-c", code, path], check=True)
    assert os.path.exists(f"{path}-wal")
    journal.count("x", "done", 1)
    assert sum(each.count for each in journal.tallies()) == 3
    assert journal.rows("PRAGMA integrity_check")[0][0] == "ok"


def test_times_fall_into_buckets(journal):
    for seconds in (0, 0.002, 5, 1e6, -3):
        journal.count("x", "done", seconds)
    assert [(each.bucket, each.count) for each in journal.tallies()] == [(0, 2), (1, 1), (8, 1), (len(BUCKETS_S), 1)]


def test_an_older_journal_gains_what_is_new(journal, path):
    newer = Part("things", (*THINGS.versions, ("ALTER TABLE thing ADD COLUMN size INTEGER",)))
    with Journal(path, [newer]) as found:
        assert found.rows("SELECT size FROM thing") == []


def test_a_newer_one_is_refused_and_left(journal, path):
    newer = Part("things", (*THINGS.versions, ("ALTER TABLE thing ADD COLUMN size INTEGER",)))
    Journal(path, [newer]).close()
    with pytest.raises(Unsupported, match="things: expected version 1 at most, found 2"):
        Journal(path, [THINGS])
    Journal(path, [newer]).close()


@pytest.mark.parametrize("data", [b"x" * 4096, b"SQLite format 3\0" + b"\xff" * 4080, bytes(range(100, 200))])
def test_what_is_no_database_is_corrupt(path, data):
    with open(path, "wb") as file:
        file.write(data)
    with pytest.raises(Corrupt):
        Journal(path)


def test_another_programs_database_is_left_alone(path):
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE theirs (x)")
    db.close()
    with pytest.raises(Corrupt, match="another database"):
        Journal(path)


def test_fields_that_are_no_object_are_corrupt(journal):
    journal.intend("x", "y", {})
    with journal.transaction() as db:
        db.execute("UPDATE intent SET fields = '[' ")
    with pytest.raises(Corrupt, match="JSON object"):
        journal.intents()


def test_a_journal_has_no_file_open_once_nothing_in_it_is_this_process_s(tmp_path):
    path = str(tmp_path / "journal.db")
    with Journal(path) as journal, Journal(path) as other:
        lease = journal.take("a")
        other.settle(other.intend("create", "b", {}), "done")
        other.close()
        assert lease.owner.mark
        assert marks.is_held(journal.marks, lease.owner.mark)
        journal.close()
        assert marks.is_held(journal.marks, lease.owner.mark)  # it goes on with the lease
    with Journal(path) as journal:
        journal.give_back(lease)
    assert not marks.taken(journal.marks)
    assert not marks.is_held(journal.marks, lease.owner.mark)


def test_a_full_disk_is_told_as_one_to_who_only_reads_too(tmp_path):
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", tmp_path]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting needs root")
    try:
        path = str(tmp_path / "journal.db")
        Journal(path).close()
        free = shutil.disk_usage(tmp_path).free
        (tmp_path / "filler").write_bytes(bytes(free))
        with pytest.raises(NoSpace, match="no space is left for the journal"):
            Journal(path)
        (tmp_path / "filler").unlink()
        with Journal(path) as journal:
            assert not journal.leases()
    finally:
        subprocess.run(["umount", tmp_path], check=True)
