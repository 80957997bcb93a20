"""The JSON Web Signature vectors of C2SP/wycheproof, against the form, the keys and the signatures.

The environment variable CONFORMANCE_VECTORS names a folder that holds `wycheproof/json_web_signature_test.json` or
the file itself; without it these tests are skipped. The vectors' payloads are no claims sets (`foo`, or nothing), so
what is judged here is everything but the payload's content.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from asgi_guard.errors import TokenError
from asgi_guard.policy.keys import ALGORITHMS, KeySet
from asgi_guard.policy.token import ParsedToken, parse

FOLDER = os.environ.get("CONFORMANCE_VECTORS")
pytestmark = pytest.mark.skipif(not FOLDER, reason="CONFORMANCE_VECTORS names no folder of vectors")

ALL = frozenset(ALGORITHMS)
NO_CLAIMS = b"e30"

MACS = {1, 348, 352, 357, 358, 359, 372, 373, 376, 377}
"""Valid MACs: no algorithm with a shared secret can be allowed. Besides, 372 and 373 hold a character that base64url
does not have, which RFC 4648 section 3.3 asks to refuse."""
OTHER_ALGORITHM = {346, 347, 350, 351}
"""The key names another algorithm than the token's header (PS256 and PS384; ES521, which does not exist, and ES512): a
key that names its algorithm is used for no other."""
BADLY_ENCODED = {360, 361, 362, 363, 364, 365, 366, 368, 369, 371, 372, 373, 374, 375}
"""The vectors about base64 that their form alone gives away. 367 and 370 are called badly padded, but are 357 again,
byte for byte."""


def vectors() -> dict[str, Any]:
    """The content of the file of vectors."""
    name = "json_web_signature_test.json"
    found = [path for path in (Path(FOLDER or "") / name, Path(FOLDER or "") / "wycheproof" / name) if path.exists()]
    content: dict[str, Any] = json.loads(found[0].read_text(encoding="utf-8"))
    return content


def form(sent: object, algorithms: frozenset[str]) -> tuple[ParsedToken, bytes]:
    """Judge a token's form and give back what was signed.

    The payload goes through the parser in the signature's place, which judges its encoding and not its content.
    """
    segments = sent.encode().split(b".") if isinstance(sent, str) else []
    if len(segments) != 3:
        raise TokenError("malformed", "this is not a token in compact form")
    parse(b".".join((segments[0], NO_CLAIMS, segments[1])), algorithms)
    return parse(b".".join((segments[0], NO_CLAIMS, segments[2])), algorithms), b".".join(segments[:2])


def accepted(sent: object, entry: object) -> bool:
    """Take a token through its form, its key and its signature."""
    try:
        parsed, signing_input = form(sent, ALL)
        key = KeySet.of({"keys": [entry]}, ALL).select(parsed.kid, parsed.algorithm)
    except TokenError:
        return False
    return key is not None and key.verifies(parsed.algorithm, signing_input, parsed.signature)


def test_the_vectors_of_wycheproof() -> None:
    """No invalid vector is accepted, and every valid one is, but for those whose refusal is meant."""
    cases = [
        (test["tcId"], test["result"], accepted(test["jws"], group.get("public", group.get("private"))))
        for group in vectors()["testGroups"]
        for test in group["tests"]
    ]
    assert len(cases) == 401
    assert [number for number, result, verdict in cases if verdict and result != "valid"] == []
    refused = {number for number, result, verdict in cases if not verdict and result == "valid"}
    assert refused == MACS | OTHER_ALGORITHM


def test_badly_encoded_vectors_are_refused_for_their_form() -> None:
    """The vectors about base64, which are MACs, are refused by their form even where their algorithm is allowed."""
    (group,) = (group for group in vectors()["testGroups"] if group["comment"] == "base64")
    refused = set()
    for test in group["tests"]:
        try:
            form(test["jws"], frozenset({"HS256"}))
        except TokenError as error:
            refused.add((test["tcId"], error.reason))
    assert refused == {(number, "malformed") for number in BADLY_ENCODED}
    assert len({test["jws"] for test in group["tests"] if test["tcId"] in (357, 367, 370)}) == 1
