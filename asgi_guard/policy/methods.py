"""Methods of requests by their names: those that there are, and which one a misspelt name may mean."""

from __future__ import annotations

from difflib import get_close_matches

KNOWN_METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"})
"""Those that nearly every app is asked by, and which logs and metrics tell apart."""
_OTHERS = frozenset(
    {
        "ACL", "BASELINE-CONTROL", "BIND", "CHECKIN", "CHECKOUT", "COPY", "LABEL", "LINK", "LOCK", "MERGE",
        "MKACTIVITY", "MKCALENDAR", "MKCOL", "MKREDIRECTREF", "MKWORKSPACE", "MOVE", "ORDERPATCH", "PROPFIND",
        "PROPPATCH", "REBIND", "REPORT", "SEARCH", "UNBIND", "UNCHECKOUT", "UNLINK", "UNLOCK", "UPDATE",
        "UPDATEREDIRECTREF", "VERSION-CONTROL",
        "LIST", "M-SEARCH", "NOTIFY", "PURGE", "SOURCE", "SUBSCRIBE", "TRACK", "UNSUBSCRIBE",
    }
)  # fmt: skip
"""The rest of IANA's registry but for PRI, which no request has; then those that servers and caches know besides."""


_HANDSHAKES = frozenset({"WEBSOCKET", "WS", "WSS"})


def not_a_method(method: str) -> str | None:
    """What to write in the place of a word that names a WebSocket, and that no request has for its method."""
    return "a WebSocket handshake is a GET: write GET" if method.upper() in _HANDSHAKES else None


def misspelt(method: str) -> str | None:
    """The one of `KNOWN_METHODS` that was meant; None unless a slip of the hand makes the one of the other.

    That is a letter too few or too many, or two that changed places: DELTE, POSTT, PTU. Another letter in the place of
    one is none, since words differ by that, READ from HEAD.
    """
    if method in KNOWN_METHODS or method in _OTHERS:
        return None
    return next((known for known in sorted(KNOWN_METHODS) if _slipped(method, known)), None)


def resembled(method: str) -> str | None:
    """The method that may be meant by one that nobody has registered: a misspelt one, or one that looks alike."""
    known = KNOWN_METHODS | _OTHERS
    if method in known:
        return None
    return misspelt(method) or next(iter(get_close_matches(method, sorted(known), n=1)), None)


def _slipped(given: str, meant: str) -> bool:
    if len(given) == len(meant):
        places = [place for place, pair in enumerate(zip(given, meant, strict=True)) if pair[0] != pair[1]]
        return len(places) == 2 and places[1] - places[0] == 1 and sorted(given) == sorted(meant)
    shorter, longer = sorted((given, meant), key=len)
    return len(longer) - len(shorter) == 1 and any(
        longer[:place] + longer[place + 1 :] == shorter for place in range(len(longer))
    )
