"""`Forwarded`, read from the right."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asgi_guard.policy.forwarded import MAX_COMMAS, MAX_ELEMENT, MAX_PAIRS, MAX_TEXT, elements, parse_element, tail


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("for=192.0.2.1", {"for": "192.0.2.1"}),
        ("For=192.0.2.1;PROTO=https;by=_me;Host=a.example", {
            "for": "192.0.2.1", "proto": "https", "by": "_me", "host": "a.example",
        }),
        (" for=192.0.2.1 ;\tproto=http ", {"for": "192.0.2.1", "proto": "http"}),
        ('for="[2001:db8::1]:4711"', {"for": "[2001:db8::1]:4711"}),
        ("for=[2001:db8::1]:4711", {"for": "[2001:db8::1]:4711"}),
        ('for="_gazonk:_port"', {"for": "_gazonk:_port"}),
        ("for=unknown", {"for": "unknown"}),
        ('for="a,b;c\\"d";host="\\\\"', {"for": 'a,b;c"d', "host": "\\"}),
        ('for=""', {"for": ""}),
        ("for=192.0.2.1;", {"for": "192.0.2.1"}),
        (";for=192.0.2.1", {"for": "192.0.2.1"}),
        ("for=192.0.2.1; ;;proto=http ; ", {"for": "192.0.2.1", "proto": "http"}),
        ("for=192.0.2.1;x-hop_1=a!b", {"for": "192.0.2.1", "x-hop_1": "a!b"}),
    ],
)  # fmt: skip
def test_an_element(text: str, pairs: dict[str, str]) -> None:
    """Names are read without case; quoted separators belong to the value, and an escape is the character behind it."""
    assert parse_element(text) == pairs


@pytest.mark.parametrize(
    "text",
    [
        "", "192.0.2.1", "for", "for=", "=192.0.2.1", ";", " ; ;", ";;192.0.2.1", "for=192.0.2.1;;x",
        "for=192.0.2.1;for=192.0.2.2", "for=192.0.2.1;FOR=192.0.2.2", 'for="192.0.2.1', 'for=192.0.2.1"',
        'for="192.0.2.1"x', 'for="192.0.2.1\\"', "for = 192.0.2.1", "for=192.0.2.1 192.0.2.2", "f\xf6r=192.0.2.1",
        "for=192.0.2.1\n", "for=192.0.2.1,",
    ],
)  # fmt: skip
def test_no_element(text: str) -> None:
    """What RFC 7239 has no words for is nothing, in all its parts."""
    assert parse_element(text) is None


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("", [None]),
        ("for=a", [{"for": "a"}]),
        ("for=a, for=b ,for=c", [{"for": "c"}, {"for": "b"}, {"for": "a"}]),
        ('for="a,b", for=c', [{"for": "c"}, {"for": "a,b"}]),
        ('for=c, for="a,b"', [{"for": "a,b"}, {"for": "c"}]),
        ('for="\\",", for=c', [{"for": "c"}, {"for": '",'}]),
        ('for=c, for="\\","', [{"for": '",'}, {"for": "c"}]),
        ('for="\\\\", for=c', [{"for": "c"}, {"for": "\\"}]),
        ('for="\\,"', [{"for": ","}]),
        ("for=a,", [None, {"for": "a"}]),
        (",for=a", [{"for": "a"}, None]),
        ("for=a,,for=b", [{"for": "b"}, None, {"for": "a"}]),
        ('for="a, for=b', [{"for": "b"}, None]),
        ('for=a", for="b"', [{"for": "b"}, None]),
        ("for=a, junk, for=b", [{"for": "b"}, None, {"for": "a"}]),
    ],
)
def test_elements(text: str, read: list[dict[str, str] | None]) -> None:
    """Elements come from the right; what is malformed is nothing, and takes away only what cannot be told from it."""
    assert list(elements(text)) == read


def test_what_is_not_read() -> None:
    """An element that is too long, or has too many commas, is nothing, and nothing is read beyond it."""
    beyond = "for=x, for="
    assert list(elements(beyond + "a" * MAX_ELEMENT)) == [None]
    longest = "for=" + "a" * (MAX_ELEMENT - len("for="))
    assert list(elements(longest)) == [{"for": longest[4:]}]
    assert list(elements(longest + "a")) == [None]
    assert list(elements(beyond + '"' + "," * MAX_COMMAS + '"')) == [None]
    assert list(elements(beyond + '"' + "a" * MAX_ELEMENT + '",for=b'))[:2] == [{"for": "b"}, None]
    assert list(elements("," * 70_000)) == [None] * (MAX_COMMAS + 1)
    long = f'for="{"a" * (MAX_ELEMENT - 100)}"'
    assert list(elements(",".join([long] * 9))) == [{"for": "a" * (MAX_ELEMENT - 100)}] * (MAX_TEXT // len(long)) + [
        None
    ]
    assert list(elements("for=x," + ",".join(["for=a"] * (MAX_TEXT // 6)) + "," * (MAX_TEXT % 6)))[-1] is None


def test_an_element_has_a_bounded_number_of_pairs() -> None:
    """What no proxy writes is not read to its end, however it is divided."""
    pairs = [f"a{index}=b" for index in range(MAX_PAIRS + 1)]
    assert len(parse_element(";".join(pairs[1:])) or ()) == MAX_PAIRS
    assert parse_element(";".join(pairs)) is None


names = st.text("abcxyz-", min_size=1, max_size=5)
values = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=8)
well_formed = st.lists(st.dictionaries(names, values, min_size=1, max_size=3), min_size=1, max_size=4)


def written(read: list[dict[str, str]]) -> str:
    """Elements as RFC 7239 asks to write them."""
    return ", ".join(
        ";".join(
            '{}="{}"'.format(name, value.replace("\\", "\\\\").replace('"', '\\"')) for name, value in pairs.items()
        )
        for pairs in read
    )


@given(well_formed)
def test_round_trip(read: list[dict[str, str]]) -> None:
    """Whatever is written as RFC 7239 asks is read as it was."""
    assert list(elements(written(read))) == read[::-1]


@given(st.text(st.characters(max_codepoint=255), max_size=60), well_formed)
def test_what_stands_ahead_changes_nothing(junk: str, read: list[dict[str, str]]) -> None:
    """Whatever a client sends, the elements that proxies append to it are read as they were written."""
    assert list(elements(f"{junk},{written(read)}"))[: len(read)] == read[::-1]


ELEMENT = "for=10.0.0.1;by=" + "a" * 180
WHOLE = ",".join([ELEMENT] * 13)
parts = st.sampled_from(["for=10.0.0.1", ",", " ", "\t", '"', "\\", ";proto=https", "=", "x", ELEMENT])


@given(front=st.lists(parts, max_size=6), back=st.lists(parts, max_size=12), cut=st.integers(0, 3))
@example(front=["x"], back=[], cut=0)
@example(front=["x"], back=[" "], cut=1)
@example(front=[" "], back=[], cut=0)
@example(front=[","], back=[], cut=0)
@example(front=['"'], back=["\t"], cut=0)
def test_the_tail_is_all_that_is_looked_at(front: list[str], back: list[str], cut: int) -> None:
    """Of what stands before the tail nothing is looked at: the elements are those of the whole, read as if it were."""
    assert len(WHOLE) == MAX_TEXT
    for text in ("".join(front) + WHOLE[cut:] + "".join(back), "".join(back)):
        lines = [text.encode()]
        assert len(tail(lines)) <= MAX_TEXT + 1
        assert list(elements(tail(lines))) == list(elements(text))
    assert tail([b"a", b"b "]) == "a,b"
