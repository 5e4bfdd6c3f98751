from __future__ import annotations

import threading

from liteship_agent.camera.slot import Latest, Slot


def in_thread(work):
    """Run it beside the test; its result is `join()`'s."""
    results = []
    thread = threading.Thread(target=lambda: results.append(work()), daemon=True)
    thread.start()

    def join():
        thread.join(10)
        return results[0]

    return join


def test_newer_value_takes_the_place_of_one_that_nobody_took():
    slot = Slot()

    assert slot.put("old") is None
    assert slot.put("new") == "old"
    assert slot.take() == "new"
    assert slot.put("next") is None


def test_value_that_waits_comes_after_the_one_before_it():
    slot = Slot()
    slot.put("first")
    put = in_thread(lambda: slot.put_when_empty("second"))

    assert [slot.take(), slot.take()] == ["first", "second"]
    assert put()


def test_taker_waits_for_a_value():
    slot = Slot()
    take = in_thread(slot.take)
    slot.put("value")

    assert take() == "value"


def test_closed_slot_gives_what_it_has_and_then_nothing():
    slot = Slot()
    slot.put("last")
    slot.close()

    assert slot.take() == "last"
    assert slot.take() is None
    assert not slot.put_when_empty("late")


def test_closing_ends_both_waits():
    full, empty = Slot(), Slot()
    full.put("value")
    put, take = in_thread(lambda: full.put_when_empty("more")), in_thread(empty.take)
    full.close()
    empty.close()

    assert put() is False
    assert take() is None


def test_every_reader_sees_the_newest():
    latest = Latest()
    quick, slow = latest.subscribe(), latest.subscribe()
    seen = []
    for value in range(5):
        latest.publish(value)
        seen.append(quick.next(0))
        if value == 0:
            slow.next(0)

    assert seen == [0, 1, 2, 3, 4]
    assert [slow.next(0), slow.next(0)] == [4, None]


def test_late_reader_begins_with_the_newest():
    latest = Latest()
    for value in range(5):
        latest.publish(value)
    reader = latest.subscribe()

    assert reader.next(0) == 4
    assert latest.get() == 4


def test_reader_gets_nothing_twice_and_nothing_after_the_end():
    latest = Latest()
    reader = latest.subscribe()
    latest.publish("only")

    assert reader.next(0) == "only"
    assert reader.next(0) is None
    assert not latest.is_closed
    latest.close()
    assert reader.next() is None
    assert latest.is_closed


def test_last_value_can_be_read_after_the_end():
    latest = Latest()
    reader = latest.subscribe()
    latest.publish("last")
    latest.close()

    assert reader.next() == "last"


def test_publishing_does_not_wait_for_readers_that_stall():
    latest = Latest()
    readers = [latest.subscribe() for _ in range(20)]
    for value in range(1000):
        latest.publish(value)

    assert [reader.next(0) for reader in readers] == [999] * 20
