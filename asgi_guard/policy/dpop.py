"""Proofs of possession: that whoever sends a token has the key that it is bound to (DPoP, RFC 9449).

The order of decisions:

1. There is exactly one proof, and it is a strict, signed JWT of the type `dpop+jwt`.
2. Its key is a public one, with the thumbprint (RFC 7638) that the token's `cnf.jkt` names.
3. `jti`, `htm`, `htu`, `iat`, `ath` and, where one is demanded, `nonce` are those of this request, now.
4. The key fits the algorithm, and the signature is that key's.
5. The proof was not seen before. That is asked of whoever remembers, by the key that the decision names.

The thumbprint is compared before the signature is checked: only the one key for which an issuer made the token is ever
loaded.
"""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64encode
from collections import OrderedDict
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest
from hmac import digest as hmac_digest
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from urllib.parse import quote, unquote_to_bytes

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from asgi_guard.errors import TokenError
from asgi_guard.policy import keys, token
from asgi_guard.policy.claims import instant
from asgi_guard.policy.identity import store_key
from asgi_guard.policy.routes import taken_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DPoPMode: TypeAlias = Literal["off", "accept", "require"]
"""Whether tokens that are bound to a key are refused, taken with their proof, or the only ones that are taken."""

PROOF_ALGORITHMS = tuple(keys.ALGORITHMS)
"""What a proof may be signed with, unless that is said; clients are told in challenges and in metadata."""

BINDING = "jkt"
"""The member of `cnf` that binds a token to the key of a proof."""

MAX_PROOF_BYTES = 4096
MAX_JTI_LENGTH = 256
MAX_RSA_BITS = 4096
MAX_RSA_EXPONENT_BITS = 32
"""Beyond these, checking one signature would take milliseconds; clients choose these keys themselves."""

_REQUIRED_MEMBERS = {"RSA": ("e", "kty", "n"), "EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x")}
"""What a thumbprint is made of (RFC 7638 section 3.2, RFC 8037 section 2)."""
_PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})

_AUTHORITY = re.compile(r"(?P<host>\[[0-9a-f:.]+\]|[^\s:/?#@\[\]\\]+)(?::(?P<port>[0-9]{0,5}))?", re.IGNORECASE)
_URL = re.compile(
    r"(?P<scheme>https?|wss?)://(?P<authority>[^/?#]*)(?P<path>/[^?#]*)?(?:[?#].*)?", re.IGNORECASE | re.DOTALL
)
_SCHEMES = {"http": ("http", "80"), "ws": ("http", "80"), "https": ("https", "443"), "wss": ("https", "443")}
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_NO_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_PATH_CHARACTERS = "/:@!$&'()*+,;=~-._"


class ProofError(TokenError):
    """A proof is missing, or not the right one for this request: the token itself may be good."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a proof has to be made for.

    Attributes:
        method: the HTTP method.
        url: the URL as the client sees it, from `url_of`; None where it cannot be told, which no proof is for.
    """

    method: str
    url: str | None


def url_of(scheme: str, host: Sequence[bytes], raw_path: bytes | None, path: str, root_path: str = "") -> str | None:
    """The URL of a request as its client sees it, normalised, without its query; None where it cannot be told.

    Args:
        scheme: the client's, which a trusted proxy may have told.
        host: the lines of `Host`.
        raw_path: the path as it was sent.
        path: the decoded path, for servers that do not keep the raw one.
        root_path: where the app is mounted, as the operator says. It is put before a path that does not begin with it:
            a proxy has taken it away. What a client says of it is not to be given, for a proof would then be good for
            every path that its URL ends with.
    """
    if len(host) != 1:
        return None
    if raw_path is None:
        raw_path = _quoted(path)
    sent = raw_path.partition(b"?")[0].decode("latin-1")
    if root_path:
        decoded = unquote_to_bytes(sent.encode("latin-1")).decode("utf-8", "surrogateescape")
        sent = _quoted(taken_path(decoded, root_path)).decode() + sent
    return None if "#" in sent else _normalised(scheme, host[0].decode("latin-1"), sent)


def _quoted(path: str) -> bytes:
    return quote(path.encode("utf-8", "surrogatepass"), _PATH_CHARACTERS).encode()


def normalised(url: str) -> str | None:
    """A URL without query and fragment, in one spelling (RFC 3986 section 6.2); None if it is no such URL.

    The schemes of WebSockets are those of their handshakes. Segments `.` and `..` stay as they are: clients resolve
    them before they send.
    """
    match = _URL.fullmatch(url)
    return None if match is None else _normalised(match["scheme"], match["authority"], match["path"] or "/")


def _normalised(scheme: str, authority: str, path: str) -> str | None:
    found, match = _SCHEMES.get(scheme.lower()), _AUTHORITY.fullmatch(authority)
    text = authority + path
    if found is None or match is None or not text.isascii() or not text.isprintable():
        return None
    if " " in path or _NO_ESCAPE.search(path):
        return None
    kind, port = found
    path = _ESCAPE.sub(_escape, path or "/")
    return f"{kind}://{match['host'].lower()}:{(match['port'] or port).lstrip('0')}{path}"


def _escape(match: re.Match[str]) -> str:
    character = chr(int(match[1], 16))
    return character if character in _UNRESERVED else match[0].upper()


def thumbprint(jwk: Mapping[str, Any]) -> str:
    """The thumbprint of a public key (RFC 7638), by which `cnf.jkt` names it.

    Raises:
        ValueError: it is no key of a known kind, or one of its members is no string.
    """
    kind = jwk.get("kty")
    names = _REQUIRED_MEMBERS.get(kind, ()) if isinstance(kind, str) else ()
    members = {name: jwk.get(name) for name in names}
    if not members or not all(isinstance(value, str) for value in members.values()):
        raise ValueError("it is no public key of a known kind")
    text = json.dumps(members, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
    return _encoded(sha256(text.encode("utf-8", "surrogatepass")).digest())


class Nonces:
    """Values that a proof has to hold, so that none can be made long before it is used (RFC 9449 section 9).

    Nothing is kept: a nonce is a keyed hash of its time, and whoever has the key tells and knows it.

    Args:
        secret: the key that all workers share.
        period: seconds after which another nonce is told. The one before still counts, and so does the one after, which
            a worker whose clock is ahead may tell.
    """

    def __init__(self, secret: str, period: float = 300) -> None:
        self._key = sha256(b"asgi-guard dpop nonce\0" + secret.encode("utf-8", "surrogatepass")).digest()
        self._period = period

    def current(self, now: float) -> str:
        """The nonce to tell at `now` (Unix seconds)."""
        return self._of(int(now // self._period))

    def accepts(self, nonce: object, now: float) -> bool:
        """Tell whether a proof's nonce is one that was told a short time ago."""
        slot = int(now // self._period)
        return any(_equal(nonce, self._of(each)) for each in (slot, slot - 1, slot + 1))

    def _of(self, slot: int) -> str:
        return _encoded(hmac_digest(self._key, b"%d" % slot, "sha256"))


@dataclass(frozen=True, slots=True)
class DPoPPolicy:
    """Which proofs are good.

    Attributes:
        algorithms: those that a proof may be signed with, all asymmetric.
        max_age: seconds for which a proof counts.
        leeway: seconds by which a client's clock, or a worker's, may be ahead.
        nonces: the nonces of which a proof has to hold one; None demands none.
    """

    algorithms: tuple[str, ...] = PROOF_ALGORITHMS
    max_age: float = 60
    leeway: float = 30
    nonces: Nonces | None = None

    @property
    def life(self) -> float:
        """Seconds after which no worker takes a proof that was seen now, so that it may be forgotten."""
        return self.max_age + 2 * self.leeway

    def verify(self, proofs: Sequence[bytes], access_token: bytes, jkt: str, request: Request, now: float) -> str:
        """Verify the proof of a request; the module's docstring gives the order.

        Args:
            proofs: the lines of the header `DPoP`.
            access_token: the token that was sent, which the caller has verified.
            jkt: the thumbprint that it is bound to.
            request: what is asked for.
            now: seconds since the Unix epoch.

        Returns:
            The name by which this proof is to be remembered for `life` seconds, and refused if it comes again.

        Raises:
            ProofError: the proof is not right; the reason begins with `proof_`.
            TokenError: the token is bound to another key than the proof's (`binding`).
        """
        parsed, jwk = self._parsed(proofs)
        try:
            shown = thumbprint(jwk)
        except ValueError as error:
            raise ProofError("proof_key", f"the proof's jwk cannot be used: {error}") from None
        if not _equal(shown, jkt):
            raise TokenError("binding", "the token is bound to another key than that of the proof")
        token_id = self._check_claims(parsed.claims, access_token, request, now)
        if not self._key(jwk, parsed.algorithm).verifies(parsed.algorithm, parsed.signing_input, parsed.signature):
            raise ProofError("proof_signature", "the proof's signature is not that of its own key")
        return store_key("dpop", jkt, token_id)

    def _parsed(self, proofs: Sequence[bytes]) -> tuple[token.ParsedToken, dict[str, Any]]:
        """The proof and its key, which is public and nothing else."""
        if len(proofs) != 1:
            reason = "proof_repeated" if proofs else "proof_missing"
            raise ProofError(reason, f"there are {len(proofs)} DPoP headers; exactly one is needed")
        if len(proofs[0]) > MAX_PROOF_BYTES:
            raise ProofError("proof_malformed", f"the proof has more than {MAX_PROOF_BYTES} bytes")
        try:
            parsed = token.parse(proofs[0], self.algorithms)
        except TokenError as error:
            raise ProofError("proof_malformed", f"the proof: {error.detail}") from None
        if parsed.header.get("typ") != "dpop+jwt":
            raise ProofError("proof_type", "the proof's typ is not dpop+jwt")
        jwk = parsed.header.get("jwk")
        if not isinstance(jwk, dict) or not _PRIVATE_MEMBERS.isdisjoint(jwk):
            raise ProofError("proof_key", "the proof's jwk is missing, or is not a public key")
        return parsed, jwk

    def _check_claims(self, claims: Mapping[str, Any], access_token: bytes, request: Request, now: float) -> str:
        """Check that the proof was made for this request, now, and return its id."""
        token_id, url = claims.get("jti"), claims.get("htu")
        if not isinstance(token_id, str) or not 0 < len(token_id) <= MAX_JTI_LENGTH:
            raise ProofError("proof_malformed", f"jti is not a string of 1 to {MAX_JTI_LENGTH} characters")
        if claims.get("htm") != request.method:
            raise ProofError("proof_method", f"the proof is for another method than {request.method}")
        if request.url is None or not isinstance(url, str) or normalised(url) != request.url:
            raise ProofError("proof_url", f"the proof is for another URL than {ascii(request.url)[:256]}")
        try:
            issued = instant(claims, "iat")
        except TokenError:
            issued = None
        if issued is None or not now - self.max_age <= issued <= now + self.leeway:
            raise ProofError("proof_time", f"iat does not lie within {self.max_age:.0f} s before now")
        if not _equal(claims.get("ath"), _encoded(sha256(access_token).digest())):
            raise ProofError("proof_token", "ath is not the hash of the token that was sent")
        if self.nonces is not None and not self.nonces.accepts(claims.get("nonce"), now):
            raise ProofError("proof_nonce", "the proof holds no nonce that was told a short time ago")
        return token_id

    def _key(self, jwk: dict[str, Any], algorithm: str) -> keys.VerificationKey:
        try:
            key = keys.load(jwk, frozenset({algorithm}))
        except ValueError as error:
            raise ProofError("proof_key", f"the proof's jwk cannot be used: {error}") from None
        material = key.material
        if isinstance(material, RSAPublicKey) and (
            material.key_size > MAX_RSA_BITS or material.public_numbers().e.bit_length() > MAX_RSA_EXPONENT_BITS
        ):
            raise ProofError("proof_key", "the proof's jwk is a larger RSA key than is taken")
        return key


class SeenProofs:
    """The proofs that this process has seen, each for as long as it could come again.

    When there is no room, nothing more is taken: a proof that was forgotten too early could be replayed. No user has
    more than a tenth of the room, so that none shuts out the others.

    Args:
        life: seconds for which each is remembered.
        size: how many are remembered at most.
    """

    def __init__(self, life: float, size: int = 100_000) -> None:
        self._life = life
        self._size = size
        self._share = max(1, size // 10)
        # Until when, and whose: all live equally long, so the first to come is the first to go.
        self._seen: OrderedDict[str, tuple[float, str]] = OrderedDict()
        self._owned: dict[str, int] = {}  # how many each user has

    def __len__(self) -> int:
        return len(self._seen)

    def is_full(self, user: str, now: float) -> bool:
        """Forget what cannot come again, and tell whether there is no room left for this user."""
        seen = self._seen
        while seen and seen[first := next(iter(seen))][0] <= now:
            self._forget(first)
        return len(seen) >= self._size or self._owned.get(user, 0) >= self._share

    def add(self, name: str, user: str, now: float) -> bool:
        """Remember a proof; False if it was seen before."""
        if name in self._seen:
            if self._seen[name][0] > now:
                return False
            self._forget(name)
        self._seen[name] = (now + self._life, user)
        self._owned[user] = self._owned.get(user, 0) + 1
        return True

    def _forget(self, name: str) -> None:
        _, user = self._seen.pop(name)
        self._owned[user] -= 1
        if not self._owned[user]:
            del self._owned[user]


def _equal(claimed: object, right: str) -> bool:
    return isinstance(claimed, str) and compare_digest(claimed.encode("utf-8", "surrogatepass"), right.encode())


def _encoded(digest: bytes) -> str:
    return urlsafe_b64encode(digest).rstrip(b"=").decode()
