"""Which limits a request is under: by the row of the route table, and by the sort of client."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asgi_guard.errors import ConfigError
from asgi_guard.policy.identity import User
from asgi_guard.policy.limit_sets import OTHERS, Kind, LimitSet, RouteLimits, Rules, binds, compile_table
from asgi_guard.policy.path_index import NO_ROW
from asgi_guard.policy.rates import KEY_KINDS, SECOND, Limit, slug
from asgi_guard.policy.routes import Route

if TYPE_CHECKING:
    from collections.abc import Sequence

TOKEN = User("ann", claims={"plan": "gold", "odd": ["gold"]})
KEY = User("ann", kind="api-key")
GOLD_KEY = User("bob", kind="api-key", plan="gold")
TABLE = (
    Route("/login", limits="5/minute by ip; 9/minute by user"),
    Route("/free", limits=""),
    Route("/dear/*", cost=3),
)


def names(plan: LimitSet) -> list[str]:
    return [limit.name for limit in plan.limits]


def compiled(limit: str, routes: Sequence[Route] = (), **rules: object) -> tuple[RouteLimits, ...]:
    plans = rules.pop("plans", None)
    assert plans is None or isinstance(plans, Mapping)
    return compile_table(limit, routes, Rules(**rules), plans)  # type: ignore[arg-type]  # they are those of Rules


def test_who_shows_no_identity_where_one_is_required() -> None:
    """A stranger whom Access refuses is under limits by address alone, whatever the row says but that it is open."""
    limit = (
        "1/hour by ip; 2/hour by anonymous; 3/hour by route; 4/hour by header:a; 5/hour by tenant; 6 at once by route"
    )
    routes = (
        Route("/own", limits="7/hour by route; 8/hour by ip"),
        Route("/maybe", auth="optional"),
        Route("/open", auth="none"),
        Route("/closed", auth="required"),
    )
    everything = ["ip", "anonymous", "route", "header-a", "tenant", "route-at-once"]
    own, maybe, open_, closed, others = compiled(limit, routes, functions=("tenant",), auth="required")
    assert names(own.anonymous) == ["own-ip"]
    assert names(maybe.anonymous) == names(open_.anonymous) == everything
    assert names(closed.anonymous) == names(others.anonymous) == ["ip", "anonymous"]
    assert [names(each.by_address) for each in (own, maybe, others)] == [["own-ip"], *[["ip", "anonymous"]] * 2]
    assert names(others.token) == names(others.api_key) == [each for each in everything if each != "anonymous"]
    assert names(others.known) == ["ip", "route", "header-a", "route-at-once"]
    *_, closed, others = compiled(limit, routes, functions=("tenant",))
    assert (names(closed.anonymous), names(others.anonymous)) == (["ip", "anonymous"], everything)


@pytest.mark.parametrize(
    ("limit", "anonymous", "token", "key", "known"),
    [
        ("", [], [], [], []),
        ("5/hour by ip", ["ip"], ["ip"], ["ip"], ["ip"]),
        ("5/hour by anonymous", ["anonymous"], [], [], []),
        ("5/hour by user", [], ["user"], ["user"], []),
        ("5/hour by api-key", [], [], ["api-key"], []),
        ("5/hour by user; 6/hour by api-key", [], ["user"], ["api-key"], []),
        ("5/hour by route", ["route"], ["route"], ["route"], ["route"]),
        ("5/hour by header:a", ["header-a"], ["header-a"], ["header-a"], ["header-a"]),
        ("5/hour by tenant", ["tenant"], ["tenant"], ["tenant"], []),
        ("5 at once by user; 1/hour by ip", ["ip"], ["user-at-once", "ip"], ["user-at-once", "ip"], ["ip"]),
        ("5/hour by ip shadow", ["ip"], ["ip"], ["ip"], ["ip"]),
    ],
)  # fmt: skip
def test_who_is_under_which_limits(
    limit: str, anonymous: list[str], token: list[str], key: list[str], known: list[str]
) -> None:
    """Limits by identity apply to those who have one, `anonymous` to those who have none, and the others to anyone."""
    (row,) = compiled(limit, functions=("tenant",))
    assert names(row.of(None)) == anonymous
    assert names(row.of(TOKEN)) == token
    assert names(row.of(KEY)) == key
    assert names(row.known) == known


def test_rows() -> None:
    """A row has its own limits or none, and every other row the default ones, at its own cost."""
    login, free, dear, others = compiled("5/hour by ip; 6/hour by user", TABLE)
    assert names(login.of(None)) == ["login-ip"]
    assert names(login.of(TOKEN)) == ["login-ip", "login-user"]
    assert names(free.of(TOKEN)) == names(free.of(None)) == names(free.known) == []
    assert dear.of(TOKEN).limits == others.of(TOKEN).limits
    assert [row.of(None).cost for row in (login, free, dear, others)] == [1, 1, 3, 1]
    assert [row.of(None).place for row in (login, free, dear, others)] == ["login", "free", "dear", OTHERS]
    assert compiled("5/hour by ip", TABLE)[NO_ROW].of(None).place == OTHERS


@pytest.mark.parametrize(
    ("user", "claim", "expected"),
    [
        (None, "plan", ["ip"]),
        (TOKEN, None, ["ip", "user"]),
        (TOKEN, "plan", ["ip", "gold-user"]),
        (TOKEN, "missing", ["ip", "user"]),
        (TOKEN, "odd", ["ip", "user"]),
        (User("eve", claims={"plan": "iron"}), "plan", ["ip", "user"]),
        (User("eve", claims={"plan": "gold-user"}), "plan", ["ip", "user"]),
        (User("eve", plan="gold"), None, ["ip", "gold-user"]),
        (User("eve", plan="gold"), "plan", ["ip", "user"]),
        (KEY, "plan", ["ip", "api-key"]),
        (GOLD_KEY, "plan", ["ip", "gold-api-key"]),
        (GOLD_KEY, None, ["ip", "gold-api-key"]),
        (User("bob", kind="api-key", plan="flat"), None, ["ip", "flat-user"]),
        (User("bob", kind="api-key", plan="none"), None, ["ip"]),
    ],
)
def test_plans_by_name(user: User | None, claim: str | None, expected: list[str]) -> None:
    """An identity of a plan has the plan's limits instead of the default ones by identity, and the others as well."""
    plans = {"gold": "50/hour by user; 60/hour by api-key", "flat": "9/hour by user", "none": ""}
    default = "5/hour by ip; 1/hour by anonymous as nobody; 6/hour by user; 7/hour by api-key"
    (row,) = compiled(default, plans=plans)
    assert names(row.of(user, claim)) == (["ip", "nobody"] if user is None else expected)


def test_a_row_with_limits_knows_no_plans() -> None:
    """A row that names limits has those for everyone, whatever their plan."""
    login, *_ = compiled("6/hour by user", TABLE, plans={"gold": "50/hour by user"})
    assert names(login.of(TOKEN, "plan")) == ["login-ip", "login-user"]
    assert names(login.of(GOLD_KEY)) == ["login-ip", "login-user"]


@pytest.mark.parametrize(
    ("limit", "routes", "plans", "says"),
    [
        ("5/hour", (), {}, ["limit: '5/hour' does not say by what"]),
        ("5/hour by ip", [Route("/a", limits="x")], {}, ["routes: ", "'x' is not a limit"]),
        ("5/hour by ip", (), {"a": "x"}, ["plans: a: 'x' is not a limit"]),
        ("5/hour by ip", (), {"a": "5/hour by ip as x"}, ["plans: a plan limits identities"]),
        ("5/hour by ip", (), {"a": "5/hour by anonymous"}, ["plans: a plan limits identities"]),
        ("5/hour by ip", [Route("/a", cost=6)], {}, ["costs 6, but '5/hour by ip' never holds more than 5"]),
        ("", [Route("/a", cost=6)], {"a": "5/hour by user"}, ["costs 6, but '5/hour by user'"]),
        ("x", [Route("/a", limits="y")], {"a": "z"}, ["'x' is not", "'y' is not", "'z' is not"]),
        ("1/hour by ip as a", [Route("/a", limits="2/hour by ip as a")], {}, ["both have the name 'a'"]),
        ("1/hour by ip as a-user", [Route("/a", limits="2/hour by user")], {}, ["both have the name 'a-user'"]),
        ("", [Route("/a", limits="1/hour by user; 2/hour by ip as a-user")], {}, ["both have the name 'a-user'"]),
        ("1/hour by user as p-user", (), {"p": "2/hour by user"}, ["both have the name 'p-user'"]),
    ],
)
def test_everything_that_is_wrong(limit: str, routes: Sequence[Route], plans: dict[str, str], says: list[str]) -> None:
    """Limits that are malformed, never admit a request, or share a name are all told of, by name."""
    with pytest.raises(ConfigError) as caught:
        compiled(limit, routes, plans=plans)
    for words in says:
        assert words in str(caught.value)


def test_what_costs_too_much_only_for_itself_is_right() -> None:
    """A cost may be more than a number at once, than other rows' limits, and than plans that the row does not have."""
    routes = [Route("/a", cost=6, limits="6/hour by ip; 1 at once by ip"), Route("/b", limits="1/hour by ip")]
    compiled("5/hour by ip", routes, plans={"p": "2/hour by user"})


TEXTS = st.lists(
    st.builds(
        lambda number, key, name, at_once: f"{number}{' at once' if at_once else '/hour'} by {key}{name}",
        st.integers(1, 2),
        st.sampled_from([*KEY_KINDS, "header:a"]),
        st.sampled_from(["", "", " as a-user", " as a-2-user", " as user-2", " as b"]),
        st.booleans(),
    ),
    max_size=3,
).map("; ".join)
PATHS = st.sampled_from(["/a", "/a/*", "/a-2", "/A", "/a/user", "/", "/*", "/\N{LATIN SMALL LETTER U WITH DIAERESIS}"])


@given(TEXTS, st.lists(st.builds(Route, PATHS, limits=st.one_of(st.none(), TEXTS)), max_size=5), TEXTS)
@example(
    "1/hour by user as a-2-user", [Route("/a", limits="1/hour by user"), Route("/a/*", limits="1/hour by user")], ""
)
@example("1/hour by user", [Route("/p", limits="1/hour by user")], "1/hour by user")
def test_one_name_is_one_limit(default: str, routes: list[Route], plan: str) -> None:
    """Whatever is written, two limits of one name are the same limit, or the whole is an error; places are distinct."""
    try:
        table = compiled(default, routes, plans={"a": plan, "A": plan})
    except ConfigError:
        return
    limits = {limit for row in table for each in row.all() for limit in each.limits}
    assert len({limit.name for limit in limits}) == len(limits)
    places = [row.of(None).place for row in table]
    assert len(set(places)) == len(places)
    assert all(re.fullmatch(r"[a-z0-9-]+", name) for name in [*places, *(limit.name for limit in limits)])
    for row in table:
        for each in row.all():
            assert len({limit.name for limit in each.limits}) == len(each.limits)
            assert set(row.known.limits) <= set(each.limits)


def test_rows_of_one_short_name_are_apart() -> None:
    """Rows of one short name, of another's place, or of the name of the rest, have buckets of their own."""
    routes = [Route(path, limits="1/hour by ip; 1/hour by route") for path in ("/a", "/a/*", "/a-2", "/others", "/A")]
    table = compiled("1/hour by ip", routes)
    assert [row.of(None).place for row in table] == ["a", "a-2", "a-2-2", "others-2", "a-3", OTHERS]
    assert [names(row.known)[0] for row in table] == ["a-ip", "a-2-ip", "a-2-2-ip", "others-ip", "a-3-ip", "ip"]
    assert slug("/A") == slug("/a/*")


def test_what_all_limits_have_in_common() -> None:
    """What the operator says for all limits holds where a limit does not say otherwise, and shadow for every one."""
    text = "1/hour by ip; 2/hour by user on-failure allow enforce 7%"
    (row,) = compiled(text, on_failure="deny")
    assert [(limit.on_failure, limit.enforced) for limit in row.of(TOKEN).limits] == [("deny", 100), ("allow", 7)]
    (row,) = compiled(text, shadow=True)
    assert [(limit.on_failure, limit.enforced) for limit in row.of(TOKEN).limits] == [("local", 0), ("allow", 0)]


@pytest.mark.parametrize(
    ("text", "workers", "interval", "burst"),
    [
        ("60/minute by ip", 1, SECOND, 60),
        ("60/minute by ip", 4, 4 * SECOND, 15),
        ("60/minute by ip", 7, 7 * SECOND, 8),
        ("60/minute by ip", 100, 100 * SECOND, 1),
        ("9 at once by ip", 4, 60 * SECOND, 2),
        ("3 at once by ip", 4, 60 * SECOND, 1),
    ],
)
def test_shares(text: str, workers: int, interval: int, burst: int) -> None:
    """Without the store each worker has its part of a limit, of the rate and of the burst, and at least one unit."""
    (row,) = compiled(text, workers=workers)
    ((name, share),) = row.of(None).share.items()
    assert (share.name, share.interval, share.burst) == (name, interval, burst)
    assert share.capacity == interval * burst


def test_shares_have_room_for_the_dearest_request() -> None:
    """A worker's share of a limit is the same in every row, and holds what the dearest row under the limit costs."""
    routes = [Route("/a", cost=3), Route("/b", cost=5), Route("/c", cost=9, limits="9/hour by ip")]
    text, plans = "60/hour by ip; 200/hour by user; 2 at once by ip", {"paid": "90/hour by user"}
    table = compiled(text, routes, plans=plans, workers=20)
    ann, bob = User("ann", plan="paid"), User("bob")
    for place in (0, 1, 3):
        held = [[share.burst for share in table[place].of(user).share.values()] for user in (None, ann, bob)]
        assert held == [[5, 1], [5, 1, 5], [5, 10, 1]]
    assert [share.burst for share in table[2].of(None).share.values()] == [9]


def test_only_what_refuses_locally_has_a_share() -> None:
    """A limit in shadow, or one that allows or denies without the store, has no share."""
    text = "1/hour by ip shadow; 2/hour by ip on-failure allow; 3/hour by ip on-failure deny; 4/hour by ip enforce 1%"
    (row,) = compiled(text)
    assert list(row.of(None).share) == ["ip-4"]


@pytest.mark.parametrize(
    ("text", "counts", "policy"),
    [
        ("1/minute by ip", False, b'"ip";q=1;w=60'),
        ("1/minute by ip; 2 at once by ip", True, b'"ip";q=1;w=60, "ip-at-once";q=2;qu="concurrent-requests"'),
        ("1/minute by ip; 2 at once by ip shadow", True, b'"ip";q=1;w=60'),
        ("1/minute by ip; 2/minute by ip enforce 50%", False, None),
        ("1/minute by ip shadow", False, b""),
    ],
)
def test_what_is_said_of_a_set_of_limits(text: str, counts: bool, policy: bytes | None) -> None:
    """A set tells of limits that refuse, once for all where they refuse everyone, and whether requests are counted."""
    (row,) = compiled(text)
    applying = row.of(None)
    assert applying.counts is counts
    assert applying.policy == (None if policy is None else (b"ratelimit-policy", policy))


@pytest.mark.parametrize(
    ("text", "needed"),
    [
        ("", set()),
        ("1/hour by ip", set()),
        ("1/hour by ip on-failure allow", set()),
        ("1/hour by ip on-failure deny", {"anonymous", "token", "api-key"}),
        ("1/hour by ip; 1/hour by route on-failure deny", {"anonymous", "token", "api-key"}),
        ("1/hour by header:a on-failure deny", {"anonymous", "token", "api-key"}),
        ("1/hour by tenant on-failure deny", set()),
        ("1/hour by ip on-failure deny shadow", set()),
        ("1/hour by ip on-failure deny enforce 99%", set()),
        ("1/hour by anonymous on-failure deny", {"anonymous"}),
        ("1/hour by user on-failure deny", {"token", "api-key"}),
        ("1/hour by user; 1/hour by api-key on-failure deny", {"api-key"}),
    ],
)
def test_who_is_refused_while_the_store_does_not_answer(text: str, needed: set[Kind]) -> None:
    """All of a sort of client are, whom a limit that denies refuses each of; several sorts are if each of them is."""
    (row,) = compiled(text, functions=("tenant",))
    kinds: tuple[Kind, ...] = ("anonymous", "token", "api-key")
    for one in kinds:
        assert row.need_store([one]) is (one in needed)
        for other in kinds:
            assert row.need_store([one, other]) is ({one, other} <= needed)


@pytest.mark.parametrize(
    ("text", "by_client"),
    [
        ("", True),
        ("1/hour by ip; 1/hour by anonymous; 1/hour by user; 1/hour by api-key; 1/hour by route", True),
        ("1/hour by header:a", False),
        ("1/hour by ip; 1/hour by header:a", False),
        ("1/hour by tenant; 1/hour by ip", False),
    ],
)
def test_what_goes_by_the_client_alone(text: str, by_client: bool) -> None:
    """Limits by a header, or by what a function gives, are charged anew for each request of a client."""
    (row,) = compiled(text, functions=("tenant",))
    assert [row.of(user).by_client for user in (None, TOKEN, KEY)] == [by_client] * 3


def partly(percent: int, name: str = "ip") -> Limit:
    return Limit(name, "", "ip", SECOND, 1, enforced=percent)


@pytest.mark.parametrize("percent", [0, 1, 10, 25, 50, 90, 99, 100])
def test_the_share_of_clients_is_near_what_was_asked(percent: int) -> None:
    """Of ten thousand clients a limit refuses about the percentage that it is enforced for."""
    refused = sum(binds(partly(percent), f"ip:192.0.{index // 256}.{index % 256}") for index in range(10_000))
    assert abs(refused - 100 * percent) < 50


@given(st.text(max_size=40), st.integers(0, 100), st.integers(0, 100))
@example("\ud800", 50, 51)
def test_always_the_same_clients(client: str, lower: int, higher: int) -> None:
    """A client is refused each time or never; all are at 100 % and none at 0; raising the percentage only adds some."""
    assert binds(partly(100), client)
    assert not binds(partly(0), client)
    lower, higher = sorted((lower, higher))
    assert binds(partly(lower), client) <= binds(partly(higher), client)


def test_different_limits_choose_different_clients() -> None:
    """Limits that are enforced for a part choose independently of each other."""
    clients = [f"ip:{index}" for index in range(4000)]
    both = sum(binds(partly(50, "a"), client) and binds(partly(50, "b"), client) for client in clients)
    assert 800 < both < 1200
