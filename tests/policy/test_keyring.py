"""When keys are fetched, as a table and as laws over any flood, and never too often."""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asgi_guard.errors import TokenError
from asgi_guard.policy.keyring import KeyRing, KeyStatus, KeyTimes, Step, remaining_life
from asgi_guard.policy.keys import KeySet, VerificationKey

TIMES = KeyTimes()


def key_set(*kids: str) -> KeySet:
    """A set of keys; what they verify is of no interest here."""
    return KeySet(tuple(VerificationKey(kid, frozenset({"ES256"}), material=None) for kid in kids))


KEYS = key_set("known")
AT = 1000.0
"""When the keys of the table were asked for and came."""
FETCHED = KeyRing().started(AT).fetched(KEYS, AT, TIMES)


def failing(failures: int, now: float, ring: KeyRing = FETCHED) -> KeyRing:
    """A ring whose last tries failed, the last one now."""
    return replace(ring, failures=failures - 1).failed(now, TIMES, "the issuer is away")


@pytest.mark.parametrize(
    ("kid", "later", "fetching", "step"),
    [
        ("known", 0, False, Step.USE),
        ("known", 239, False, Step.USE),
        ("known", 240, False, Step.USE_AND_REFRESH),
        ("known", 240, True, Step.USE),
        ("known", 299, False, Step.USE_AND_REFRESH),
        ("known", 299, True, Step.USE),
        ("known", 300, False, Step.WAIT),
        ("known", 300, True, Step.WAIT),
        ("known", 3900, False, Step.WAIT),
        ("known", 3900, True, Step.WAIT),
        ("other", 0, False, Step.UNKNOWN_KEY),
        ("other", 29, False, Step.UNKNOWN_KEY),
        ("other", 29, True, Step.WAIT),
        ("other", 30, False, Step.WAIT),
        ("other", 30, True, Step.WAIT),
        ("other", 300, False, Step.WAIT),
        ("other", 3900, False, Step.WAIT),
        (None, 0, False, Step.USE),
    ],
)
def test_what_is_done_for_a_token(kid: str | None, later: float, fetching: bool, step: Step) -> None:
    """The age of the keys, the kid and a fetch under way decide whether to use, refresh, wait or refuse."""
    decided, key = FETCHED.decide(kid, "ES256", AT + later, TIMES, fetching=fetching)
    assert decided is step
    assert key is (KEYS.keys[0] if step in (Step.USE, Step.USE_AND_REFRESH) else None)


@pytest.mark.parametrize(
    ("ring", "kid", "later", "step"),
    [
        (FETCHED, "known", 240, Step.USE),
        (FETCHED, "other", 240, Step.UNKNOWN_KEY),
        (FETCHED, "known", 300, Step.UNAVAILABLE),
        (FETCHED, "other", 300, Step.UNAVAILABLE),
        (failing(1, AT + 300), "known", 400, Step.USE),
        (failing(1, AT + 300), "other", 400, Step.UNAVAILABLE),
        (FETCHED.failed(AT + 200, TIMES, "no key", withdrawn=True), "other", 240, Step.UNKNOWN_KEY),
        (failing(1, AT + 300), "known", 4000, Step.UNAVAILABLE),
        (KeyRing(), "known", 0, Step.UNAVAILABLE),
    ],
)
def test_nobody_waits_twice(ring: KeyRing, kid: str, later: float, step: Step) -> None:
    """A token that has waited for a fetch is decided with what there is, and starts no other."""
    for fetching in (False, True):
        assert ring.decide(kid, "ES256", AT + later, TIMES, fetching=fetching, waited=True)[0] is step


@pytest.mark.parametrize(
    ("failures", "later", "known", "other"),
    [
        (1, 0.9, Step.USE, Step.UNAVAILABLE),
        (1, 1, Step.USE_AND_REFRESH, Step.UNAVAILABLE),
        (1, 29, Step.USE_AND_REFRESH, Step.UNAVAILABLE),
        (1, 30, Step.USE_AND_REFRESH, Step.WAIT),
        (3, 3.9, Step.USE, Step.UNAVAILABLE),
        (3, 4, Step.USE_AND_REFRESH, Step.UNAVAILABLE),
        (6, 31.9, Step.USE, Step.UNAVAILABLE),
        (6, 32, Step.USE_AND_REFRESH, Step.WAIT),
        (7, 59.9, Step.USE, Step.UNAVAILABLE),
        (7, 60, Step.USE_AND_REFRESH, Step.WAIT),
        (5000, 60, Step.USE_AND_REFRESH, Step.WAIT),
    ],
)
def test_failures_spread_the_tries(failures: int, later: float, known: Step, other: Step) -> None:
    """While the issuer fails, stale keys are used, and tries are spread by backoff, those for unknown kids more so."""
    ring = failing(failures, AT + 400)
    assert ring.decide("known", "ES256", AT + 400 + later, TIMES, fetching=False)[0] is known
    assert ring.decide("other", "ES256", AT + 400 + later, TIMES, fetching=False)[0] is other


@pytest.mark.parametrize(
    ("failures", "backoff", "cooldown"),
    [(1, 1, 30), (2, 2, 30), (3, 4, 30), (4, 8, 30), (5, 16, 30), (6, 32, 32), (7, 60, 60), (100, 60, 60)],
)
def test_without_usable_keys_tries_are_spread_as_well(failures: int, backoff: float, cooldown: float) -> None:
    """Keys that are too old are fetched for their own kids after the backoff, and for any other after the cooldown."""
    late = AT + 5000
    cold, old = failing(failures, late, KeyRing()), failing(failures, late)
    for ring, kid, wait in ((old, "known", backoff), (old, "other", cooldown), (cold, "known", cooldown)):
        assert ring.next_try(TIMES, known=ring.knows(kid, "ES256")) == late + wait
        assert ring.decide(kid, "ES256", late + wait - 0.1, TIMES, fetching=False) == (Step.UNAVAILABLE, None)
        assert ring.decide(kid, "ES256", late + wait - 0.1, TIMES, fetching=True) == (Step.WAIT, None)
        assert ring.decide(kid, "ES256", late + wait, TIMES, fetching=False) == (Step.WAIT, None)


def test_a_ring_that_never_fetched_waits_for_its_first_fetch() -> None:
    """Before the first fetch, any token waits for one, at any time of the clock: no keys are held, of use or old."""
    for now in (-1e9, 0.0, 1e9):
        assert KeyRing().decide(None, "ES256", now, TIMES, fetching=False) == (Step.WAIT, None)
        assert not KeyRing().held(now, TIMES)
        assert not failing(1, now, KeyRing()).usable(now, TIMES)
        assert KeyRing().status(now, TIMES) == KeyStatus("missing", 0, None, 0.0, 0, None, 0.0)


@pytest.mark.parametrize(
    ("said", "life"),
    [(None, 300), (0, 60), (59, 60), (60, 60), (600, 600), (3600, 3600), (86400, 3600), (1e12, 3600)],
)
def test_the_issuer_says_how_long_keys_live_within_bounds(said: float | None, life: float) -> None:
    """What the issuer says of their life holds between the shortest and the longest; without it the default does."""
    assert KeyRing().fetched(KEYS, AT, TIMES, said).expires == AT + life


@pytest.mark.parametrize(
    ("cache_control", "age", "life"),
    [
        ("", "", None),
        ("", "5", None),
        ("public", "", None),
        ("max-age=600", "", 600),
        ("Public, MAX-AGE=600, must-revalidate", "", 600),
        ('max-age="600"', "", 600),
        ("max-age=600,max-age=60", "", 60),
        ("max-age=600", "100", 500),
        ("max-age=600", " 100 ", 500),
        ("max-age=600", "601", 0),
        ("max-age=600", "-5", 600),
        ("max-age=600", "soon", 600),
        ("max-age=0", "", 0),
        ("no-store", "", 0),
        ("no-cache", "", 0),
        ("max-age=600, No-Store", "", 0),
        ("no-cache=set-cookie, max-age=600", "", 600),
        ("s-maxage=600", "", None),
        ("x-max-age=600", "", None),
        ("max-age=soon", "", None),
        ("max-age=-1", "", None),
        ("max-age=1.5", "", None),
        ("max-age=", "", None),
        ("max-age", "", None),
        ("max-age=\u0664\u0662", "", None),
        ("max-age=²", "", None),
        ("max-age=" + "9" * 5000, "", 2**31),
        ("max-age=" + "9" * 5000, "9" * 5000, 0),
    ],
)
def test_what_an_answer_says_of_its_life(cache_control: str, age: str, life: float | None) -> None:
    """Freshness is what `max-age` leaves of it after `Age`, nothing with `no-store` or `no-cache`, or is not said."""
    assert remaining_life(cache_control, age) == life


@given(cache_control=st.text(max_size=60), age=st.text(max_size=20))
@example(cache_control="max-age=1,,=,no-cache=", age="")
def test_any_header_gives_a_life_or_none(cache_control: str, age: str) -> None:
    """Whatever an issuer writes there, it comes to a number of seconds that is not negative, or to nothing."""
    life = remaining_life(cache_control, age)
    assert life is None or 0 <= life <= 2**31


@pytest.mark.parametrize("said", [0, 1, 59, 60, 61, 90, 119, 120, 300, 3600, 86400])
@pytest.mark.parametrize("jitter", [0, 0.5, 1])
def test_short_lived_keys_are_not_fetched_without_a_pause(said: float, jitter: float) -> None:
    """However short a life the issuer gives its keys, they are used for half of it before they are fetched anew."""
    ring = KeyRing().started(AT).fetched(KEYS, AT, TIMES, said, jitter)
    pause = (ring.expires - AT) / 2
    assert ring.decide("known", "ES256", AT, TIMES, fetching=False)[0] is Step.USE
    assert ring.decide("known", "ES256", AT + pause - 0.1, TIMES, fetching=False)[0] is Step.USE
    assert ring.decide("known", "ES256", ring.expires - 0.1, TIMES, fetching=False)[0] is Step.USE_AND_REFRESH


@given(jitter=st.floats(0, 1), life=st.none() | st.floats(0, 1e5), failures=st.integers(1, 20))
@example(jitter=0.0, life=None, failures=1)
@example(jitter=1.0, life=0.0, failures=7)
def test_chance_moves_tries_within_bounds(jitter: float, life: float | None, failures: int) -> None:
    """Chance puts a refresh off within the first half of its time, and shortens a backoff by half at most."""
    exact, moved = (KeyRing().fetched(KEYS, 0.0, TIMES, life, chance) for chance in (0.0, jitter))
    assert exact.due <= moved.due <= (exact.due + exact.expires) / 2 + 1e-9
    assert moved.expires == exact.expires
    exact, moved = (
        replace(KeyRing(), failures=failures - 1).failed(0.0, TIMES, "", chance) for chance in (0.0, jitter)
    )
    assert exact.retry / 2 <= moved.retry <= exact.retry <= TIMES.max_backoff
    assert moved.next_try(TIMES, known=False) >= TIMES.cooldown


def test_chance_at_its_most() -> None:
    """Chance at its most waits half as long after a failure, and half as long before the end of the keys' life."""
    assert KeyRing().failed(AT, TIMES, "", 1.0).retry == AT + TIMES.first_backoff / 2
    assert KeyRing().fetched(KEYS, AT, TIMES, None, 1.0).due == AT + TIMES.ttl - TIMES.refresh_ahead / 2
    assert KeyRing().fetched(KEYS, AT, TIMES, 90, 1.0).due == AT + 90 - 90 / 2 / 2


def test_workers_that_start_together_do_not_refresh_together() -> None:
    """A hundred workers that fetched in one moment ask again spread over half a minute."""
    dues = [KeyRing().fetched(KEYS, AT, TIMES, None, worker / 100).due for worker in range(100)]
    assert (min(dues), round(max(dues) - min(dues))) == (AT + 240, 30)
    assert all(later - earlier > 0.2 for earlier, later in pairwise(dues))


def test_a_failure_takes_nothing_away() -> None:
    """A failed fetch leaves the keys and their life as they were."""
    failed = FETCHED.started(AT + 250).failed(AT + 253, TIMES, "why")
    assert (failed.keys, failed.expires, failed.due) == (FETCHED.keys, FETCHED.expires, FETCHED.due)
    assert (failed.tried, failed.failures, failed.failure) == (AT + 253, 1, "why")


def test_a_success_ends_the_backoff() -> None:
    """After a fetch that succeeded, failures are forgotten."""
    ring = failing(2, AT).started(AT + 5).fetched(KEYS, AT + 6, TIMES)
    assert (ring.failures, ring.failure) == (0, None)
    assert ring.next_try(TIMES, known=True) <= AT + 6
    assert ring.next_try(TIMES, known=False) == AT + 5 + TIMES.cooldown


def test_without_staleness_keys_end_with_their_life() -> None:
    """Where stale keys are not to be used, expired ones are not."""
    times = KeyTimes(stale_for=0)
    ring = FETCHED.failed(AT + 299.5, times, "why")
    assert ring.usable(AT + 299.9, times)
    assert not ring.usable(AT + 300, times)
    assert ring.decide("known", "ES256", AT + 299.9, times, fetching=False)[0] is Step.USE
    assert ring.decide("known", "ES256", AT + 300, times, fetching=False) == (Step.UNAVAILABLE, None)


def test_a_key_that_was_withdrawn_does_not_outlive_its_set_in_quiet_times() -> None:
    """Past their life keys are used only once a try to fetch them has failed, however long nobody asked for them."""
    assert not FETCHED.usable(AT + 300, TIMES)
    assert FETCHED.held(AT + 3899, TIMES)
    assert failing(1, AT + 300).usable(AT + 3899, TIMES)
    assert not failing(1, AT + 300).held(AT + 3900, TIMES)


def test_keys_that_were_withdrawn_end_with_their_life() -> None:
    """Once the issuer has answered without a key of use, no failure makes the keys last; the next set is as any."""
    ring = failing(1, AT + 20, FETCHED.failed(AT + 10, TIMES, "no key", withdrawn=True))
    assert ring.usable(AT + 299, TIMES)
    assert ring.status(AT + 290, TIMES).left == 10
    assert ring.status(AT + 310, TIMES).left == 0
    assert not ring.held(AT + 300, TIMES)
    assert ring.decide("known", "ES256", AT + 300, TIMES, fetching=False) == (Step.WAIT, None)
    assert failing(1, AT + 600, ring.fetched(KEYS, AT + 301, TIMES)).usable(AT + 602, TIMES)


def test_an_ambiguous_kid_starts_no_fetch() -> None:
    """Where several keys fit, the token is refused, whatever could be fetched."""
    ring = failing(1, AT, KeyRing().fetched(key_set("twice", "twice"), AT, TIMES))
    with pytest.raises(TokenError) as caught:
        ring.decide("twice", "ES256", AT + 1000, TIMES, fetching=False)
    assert caught.value.reason == "ambiguous_key"


def test_an_ambiguous_kid_is_not_judged_by_keys_that_are_too_old() -> None:
    """Keys that may not be used do not get a token refused either: it is unavailable, or waits."""
    ring = KeyRing().fetched(key_set("twice", "twice"), AT, TIMES)
    assert ring.decide("twice", "ES256", AT + 5000, TIMES, fetching=False) == (Step.WAIT, None)
    assert failing(7, AT + 5000, ring).decide(None, "ES256", AT + 5001, TIMES, fetching=False) == (
        Step.UNAVAILABLE,
        None,
    )


@pytest.mark.parametrize(
    ("ring", "later", "told"),
    [
        (KeyRing(), 0, "no keys"),
        (failing(1, AT, KeyRing()), 5, "no keys; failed tries: 1, the last one: the issuer is away"),
        (FETCHED, 5, "1 key, 5 s old, fresh"),
        (KeyRing().fetched(key_set("a", "b"), AT, TIMES), 299, "2 keys, 299 s old, fresh"),
        (FETCHED, 300, "1 key, 300 s old, expired"),
        (
            failing(2, AT + 290),
            299,
            "1 key, 299 s old, fresh, of use for 3601 s more; failed tries: 2, the last one: the issuer is away",
        ),
        (
            failing(9, AT + 290),
            400,
            "1 key, 400 s old, stale, of use for 3500 s more; failed tries: 9, the last one: the issuer is away",
        ),
        (
            failing(9, AT + 290),
            3900,
            "1 key, 3900 s old, expired; failed tries: 9, the last one: the issuer is away",
        ),
    ],
)
def test_status(ring: KeyRing, later: float, told: str) -> None:
    """The state tells the number of the keys, their age, whether they are of use, and how the last fetches went."""
    status = ring.status(AT + later, TIMES)
    assert str(status) == told
    assert status.usable == ring.usable(AT + later, TIMES)
    assert 0 <= status.next_try <= TIMES.max_backoff


@pytest.mark.parametrize("name", [field.name for field in fields(KeyTimes)])
@pytest.mark.parametrize("value", [-1, float("nan")])
def test_times_that_make_no_sense(name: str, value: float) -> None:
    """No time is negative, or no number."""
    with pytest.raises(ValueError, match=name):
        KeyTimes(**{name: value})


@pytest.mark.parametrize("times", [{"ttl": 0}, {"min_ttl": 0}, {"min_ttl": 2, "max_ttl": 1}])
def test_keys_need_a_life(times: dict[str, float]) -> None:
    """Keys that would be too old when they come are refused at construction."""
    with pytest.raises(ValueError, match="ttl"):
        KeyTimes(**times)
    assert KeyTimes(min_ttl=2, max_ttl=2).max_ttl == 2


@given(
    arrivals=st.lists(st.integers(0, 400).map(lambda eighths: eighths / 8), min_size=1, max_size=200),
    outcomes=st.lists(st.booleans(), min_size=1, max_size=50),
    cold=st.booleans(),
    times=st.sampled_from([TIMES, KeyTimes(stale_for=0), KeyTimes(ttl=10, refresh_ahead=5)]),
)
@example(arrivals=[0.125] * 200, outcomes=[False], cold=True, times=TIMES)
@example(arrivals=[0.125] * 200, outcomes=[False], cold=False, times=KeyTimes(ttl=10))
@example(arrivals=[10.0] * 200, outcomes=[True, False, False], cold=False, times=TIMES)
@example(arrivals=[50.0] * 200, outcomes=[False], cold=False, times=TIMES)
def test_a_flood_of_unknown_kids_costs_one_fetch_a_cooldown(
    arrivals: list[float], outcomes: list[bool], cold: bool, times: KeyTimes
) -> None:
    """Unknown kids start one fetch a cooldown, however many arrive, with keys or without, and whether fetches fail."""
    ring, now, tries = (KeyRing(), AT, []) if cold else (FETCHED, AT, [AT])
    for number, gap in enumerate(arrivals):
        now += gap
        step, _ = ring.decide(f"made-up-{number}", "ES256", now, times, fetching=False)
        told = Step.UNKNOWN_KEY if ring.usable(now, times) and not ring.failures else Step.UNAVAILABLE
        assert step in (Step.WAIT, told)
        if step is Step.WAIT:
            tries.append(now)
            succeeds = outcomes[len(tries) % len(outcomes)]
            ring = ring.started(now)
            ring = ring.fetched(KEYS, now, times) if succeeds else ring.failed(now, times, "why", jitter=1)
    assert all(later - earlier >= times.cooldown for earlier, later in pairwise(tries))
