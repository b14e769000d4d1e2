"""What is asked of a catalogue, asked of each one there is."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from blockwright.errors import ConnectionLost, Corrupt, Unsupported
from blockwright.pipeline import manage
from blockwright.pipeline.catalogue import Catalogue, Image, SqliteCatalogue
from blockwright.pipeline.images import SETTING, Images
from tests.support.pipeline import command, docker_archive, fetch, home, parsed, request

__all__ = ["home"]
ONE = Image(
    "0a", "docker://a", "ready", "p", "a-0a", "h", created_ns=1, changed_ns=5, identity={"digest": "d"}, receipts=[{}]
)
TWO = replace(ONE, id="0b", volume="b-0b", created_ns=2, receipts=[{"step": "a\0b\udc80"}, {"step": "c"}])
Open = Callable[[], Catalogue]


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    from tests.support.postgres import postgres

    with postgres() as address:
        yield address


@pytest.fixture
def database(server: str) -> str:
    import psycopg

    with psycopg.connect(server, autocommit=True) as db:
        for each in ("schema", "keeper", "image"):
            db.execute(f"DROP TABLE IF EXISTS blockwright_{each}")
    return server


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.ci)])
def opening(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """A function that opens the same catalogue each time."""
    opened: list[Catalogue] = []

    def open_one() -> Catalogue:
        if request.param == "sqlite":
            found: Catalogue = SqliteCatalogue(str(tmp_path / "c.db"))
        else:
            from blockwright.pipeline.postgres import PostgresCatalogue

            found = PostgresCatalogue(address, "here")
        opened.append(found)
        return found

    address = request.getfixturevalue("database") if request.param == "postgres" else ""
    yield open_one
    for each in opened:
        each.close()


def test_what_is_put_is_there(opening):
    mine = opening()
    for each in (TWO, ONE):
        mine.put(each)
    other = opening()
    assert other.get("0a") == ONE
    assert other.get("0b") == TWO
    assert other.get("0c") is None
    assert other.images() == [replace(ONE, receipts=[]), replace(TWO, receipts=[])] or other.images() == [
        replace(ONE, receipts=()),
        replace(TWO, receipts=()),
    ]


def test_what_is_newer_stays(opening):
    mine = opening()
    mine.put(ONE)
    mine.put(replace(ONE, state="new", changed_ns=4, receipts=[]))
    assert mine.get("0a") == ONE
    newer = replace(ONE, state="active", changed_ns=6, receipts=[{}, {}])
    mine.put(newer)
    assert mine.get("0a") == newer


def test_what_is_removed_is_gone(opening):
    mine = opening()
    for each in (ONE, TWO):
        mine.put(each)
    mine.remove("0a")
    mine.remove("0a")
    assert [each.id for each in mine.images()] == ["0b"]
    mine.put(ONE)
    assert mine.get("0a") == ONE


def test_it_is_replaced_whole_or_not_at_all(opening):
    mine = opening()
    mine.put(ONE)
    mine.replace([TWO])
    assert [each.id for each in mine.images()] == ["0b"]

    def broken() -> Iterator[Image]:
        yield ONE
        raise KeyError

    with pytest.raises(KeyError):
        mine.replace(broken())
    assert [each.id for each in opening().images()] == ["0b"]


def test_many_put_at_once(opening):
    def put(number: int) -> None:
        mine = opening()
        for at in range(5):
            mine.put(replace(ONE, id=f"{number}{at}"))
            mine.put(replace(ONE, changed_ns=number * 10 + at))

    threads = [threading.Thread(target=put, args=(number,)) for number in range(1, 5)]
    opening()  # has the tables
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    found = opening()
    assert len(found.images()) == 21
    assert found.get("0a").changed_ns == 44


# -- PostgreSQL alone --------------------------------------------------------------------------------------------


@pytest.mark.ci
def test_each_machine_changes_its_own(database):
    from blockwright.pipeline.postgres import PostgresCatalogue

    with PostgresCatalogue(database, "a") as here, PostgresCatalogue(database, "b") as there:
        assert here.fresh
        here.put(ONE)
        there.put(replace(ONE, host="b"))
        there.put(TWO)
        assert [(each.id, each.host) for each in here.images()] == [("0a", "h"), ("0a", "b"), ("0b", "h")]
        assert there.get("0a").host == "b"
        assert here.get("0a").host == "h"
        assert here.get("0b") == TWO
        here.replace([])
        here.remove("0b")
        assert [each.id for each in here.images()] == ["0a", "0b"]
    with PostgresCatalogue(database, "a") as here:
        assert not here.fresh


@pytest.mark.ci
def test_tables_are_made_by_many_at_once(database):
    from blockwright.pipeline.postgres import PostgresCatalogue

    failed: list[BaseException] = []

    def make(name: str) -> None:
        try:
            PostgresCatalogue(database, name).close()
        except BaseException as error:  # noqa: BLE001 - shown below
            failed.append(error)

    threads = [threading.Thread(target=make, args=(str(number),)) for number in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert failed == []


@pytest.mark.ci
@pytest.mark.parametrize(
    ("document", "receipts"),
    [("[]", "[]"), ("{", "[]"), ("{}", "[]"), ('{"id": 1}', "[]"), (None, "3"), (None, "[3]")],
)
def test_records_that_do_not_hold(database, document, receipts):
    import psycopg

    from blockwright.pipeline.postgres import PostgresCatalogue

    with PostgresCatalogue(database, "a") as here, psycopg.connect(database, autocommit=True) as db:
        here.put(ONE)
        db.execute(
            "UPDATE blockwright_image SET document = coalesce(%s, document), receipts = %s", (document, receipts)
        )
        with pytest.raises(Corrupt):
            here.get("0a")


@pytest.mark.ci
def test_tables_of_another_version_are_refused(database):
    import psycopg

    from blockwright.pipeline.postgres import PostgresCatalogue

    PostgresCatalogue(database, "a").close()
    with psycopg.connect(database, autocommit=True) as db:
        db.execute("UPDATE blockwright_schema SET version = 2")
    with pytest.raises(Unsupported, match="version 1"):
        PostgresCatalogue(database, "a")


@pytest.mark.ci
def test_a_server_that_went_is_one_line(database):
    import psycopg

    from blockwright.pipeline.postgres import PostgresCatalogue

    with PostgresCatalogue(database, "a") as here, psycopg.connect(database, autocommit=True) as db:
        db.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        with pytest.raises(ConnectionLost, match="PostgreSQL"):
            here.images()


@pytest.mark.ci
def test_a_run_is_told_to_the_catalogue_that_is_set(home, tmp_path, database, monkeypatch):
    first = fetch(request(docker_archive(tmp_path)))
    monkeypatch.setenv(SETTING, database)
    assert [each["id"] for each in parsed("image", "ls")["images"]] == [first.run.id]
    second = fetch(request(docker_archive(tmp_path, "two.tar")))
    with Images() as images:
        assert [each.id for each in images.list()] == [first.run.id, second.run.id]
        assert len(images.find(second.run.id).receipts) == 4
        manage.remove(images, images.find(first.run.id))
        assert [each.id for each in images.list()] == [second.run.id]
    monkeypatch.delenv(SETTING)
    assert second.run.id in [each["id"] for each in parsed("image", "ls")["images"]]


@pytest.mark.ci
def test_a_catalogue_that_was_lost_is_told_again(home, tmp_path, database, monkeypatch):
    import psycopg

    monkeypatch.setenv(SETTING, database)
    run = fetch(request(docker_archive(tmp_path))).run
    with psycopg.connect(database, autocommit=True) as db:
        db.execute("DROP TABLE blockwright_schema, blockwright_keeper, blockwright_image")
    assert [each["id"] for each in parsed("image", "ls")["images"]] == [run.id]


def test_addresses_that_are_none(home, monkeypatch):
    for address, word in (("mysql://x/y", "postgresql://"), ("postgresql:///x?host=/nowhere", "PostgreSQL")):
        code = 2 if word == "postgresql://" else 1
        out, lines = command("image", "ls", env={SETTING: address}, code=code)
        assert out == ""
        assert len(lines) == 1
        assert word in lines[0]
