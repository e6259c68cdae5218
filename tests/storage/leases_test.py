import threading
import time

import pytest

from transdiff_jax.errors import UserError
from transdiff_jax.storage import leases
from transdiff_jax.storage.leases import Lease, holder_of


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setenv(leases.SECONDS, "1")


def die(lease):
    """Ends a lease's heartbeat as a kill does."""
    lease._closed.set()
    lease._thread.join()


def test_one_of_two_holders_is_refused_and_the_next_one_may(bucket):
    first = Lease(bucket / ".lock")
    with pytest.raises(UserError, match=r"gs://runs/.* is in use by another process \(.*, process \d+, .*\); wait"):
        Lease(bucket / ".lock")
    first.close()
    assert not (bucket / ".lock").exists()
    Lease(bucket / ".lock").close()


def test_of_many_that_start_at_once_one_wins(bucket):
    held, refused = [], []

    def take():
        try:
            held.append(Lease(bucket / ".lock"))
        except UserError as error:
            refused.append(error)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(held), len(refused)) == (1, 7)
    held[0].close()


def test_a_dead_holder_is_replaced_and_notices_if_it_was_only_asleep(bucket, caplog):
    asleep = Lease(bucket / ".lock")
    die(asleep)
    second = Lease(bucket / ".lock")
    assert "its holder is silent and counts as dead" in caplog.text
    with pytest.raises(UserError, match="was taken over by another process"):
        asleep.renew()
    with pytest.raises(UserError, match="was taken over"):
        asleep.check()
    second.renew()
    second.close()


def test_a_heartbeat_finds_a_lease_that_is_lost(bucket):
    lease = Lease(bucket / ".lock")
    (bucket / ".lock").write_bytes(b"{}")
    with pytest.raises(UserError, match="was taken over"):
        for _ in range(100):
            lease.check()
            time.sleep(0.02)
    lease.close()
    assert (bucket / ".lock").read_bytes() == b"{}", "what another process wrote stays"


def test_a_holder_that_cannot_write_stops_in_time(bucket, monkeypatch):
    lease = Lease(bucket / ".lock")

    def fail():
        raise OSError("no route")

    monkeypatch.setattr(lease, "_write", fail)
    lease.check()
    time.sleep(1.1)
    with pytest.raises(UserError, match="has not heard from this one for 1 s"):
        lease.check()
    monkeypatch.undo()
    lease.close()


def test_a_write_whose_answer_was_lost_is_still_ours(bucket):
    lease = Lease(bucket / ".lock")
    die(lease)
    lease._generation = 1  # as if the last write had succeeded unseen
    before = (bucket / ".lock").blob()
    before.reload()
    lease.renew()
    after = (bucket / ".lock").blob()
    after.reload()
    assert lease._generation == after.generation != before.generation, "its time begins with a new write"
    lease.renew()


def test_a_lease_that_is_taken_while_its_holder_looks_stays_lost(bucket, monkeypatch):
    asleep = Lease(bucket / ".lock")
    die(asleep)
    asleep._generation = 1

    def look(lease, found=asleep._look):
        seen = found()
        monkeypatch.undo()
        (bucket / ".lock").write_bytes(b'{"holder": "another"}')
        return seen

    monkeypatch.setattr(Lease, "_look", look)
    with pytest.raises(UserError, match="was taken over by another process"):
        asleep.renew()
    assert (bucket / ".lock").read_bytes() == b'{"holder": "another"}'


def test_a_file_that_is_no_lease_of_ours_is_replaced_after_its_time(bucket):
    path = bucket / ".lock"
    for content in (b"", b"{", b"[" * 900, b'{"holder": ["a"]}', b'{"holder": "a\\u0007"}', bytes(10**6)):
        path.write_bytes(content)
        found = path.blob()
        found.reload()
        assert holder_of(path, found) == ""
    lease = Lease(path)
    lease.check()
    lease.close()
    assert not bucket.is_dir(), "also without the file that tells the server's time"


def test_a_server_that_cannot_be_reached_is_one_line(bucket, monkeypatch):
    lease = Lease(bucket / ".lock")
    die(lease)

    def fail():
        raise OSError(5, "no route", str(bucket / ".lock"))

    monkeypatch.setattr(lease, "_write", fail)
    with pytest.raises(UserError, match=r"gs://.*/\.lock could not be renewed \(no route\): run the same"):
        lease.renew()


def test_the_time_is_a_number(bucket, monkeypatch):
    monkeypatch.setenv(leases.SECONDS, "soon")
    with pytest.raises(UserError, match="TRANSDIFF_LEASE_SECONDS=soon must be a whole number"):
        Lease(bucket / ".lock")
