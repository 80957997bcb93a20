"""What a token is bound to, and whether whoever sends it has it: a key (DPoP), or a client certificate.

`IdentityMiddleware` asks with every request, however well it remembers the token; `AccessMiddleware` words the refusal.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from asgi_guard.chain.exchange import Exchange, trusts_nobody
from asgi_guard.configuration.arguments import typed
from asgi_guard.errors import ConfigError, Problem, StoreUnavailableError, TokenError, require_choice
from asgi_guard.limiting.undecided import Undecided
from asgi_guard.policy import certificate
from asgi_guard.policy.bucket import Admission, Charge
from asgi_guard.policy.certificate import CertificateSource
from asgi_guard.policy.claims import confirmation
from asgi_guard.policy.dpop import BINDING, DPoPMode, DPoPPolicy, Nonces, ProofError, Request, SeenProofs, url_of
from asgi_guard.policy.identity import store_key
from asgi_guard.policy.rates import SECOND, Limit
from asgi_guard.policy.secret import too_short
from asgi_guard.stores.eviction import caution

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asgi_guard.policy.credentials import Credential
    from asgi_guard.policy.identity import User
    from asgi_guard.stores import Store

logger = logging.getLogger("asgi_guard")

PROOFS_KEY = "asgi_guard.proofs"
"""Where the scope says how many guards further out have counted this request's proof: each counts it once."""
WITHOUT_STORE = "requests with a token that is bound to a key meet 503"
"""What holds while the store does not answer: a proof may have been seen before."""


class Possession:
    """Which bound tokens are taken, and how their holders prove that they have what the tokens are bound to.

    Args:
        dpop: `off` refuses tokens that are bound to a key; `accept` takes them with their proof, beside tokens that are
            not bound; `require` takes no other tokens. API keys are no tokens, and not concerned.
        client_cert: where the client's certificate is told, to which tokens may be bound: nowhere (`off`, which refuses
            such tokens), by the server (`tls`), or in a header that the trusted proxies write, over whatever their
            clients sent there.
        trusts_proxy: tells whether an address is that of a proxy that is believed; nobody is unless said.
        trusts_socket: whether whoever connects without an address, as by a UNIX socket, is such a proxy.
        dpop_nonce_secret: the key of nonces, the same for all workers; without one, proofs need no nonce.
        store: where proofs that were seen are kept, if other processes share it; this process's memory if not.
        clock: seconds since the Unix epoch.

    Raises:
        ConfigError: an argument cannot be used.
    """

    @typed
    def __init__(
        self,
        *,
        dpop: DPoPMode = "off",
        client_cert: CertificateSource = "off",
        trusts_proxy: Callable[[str], bool] = trusts_nobody,
        trusts_socket: bool = False,
        dpop_nonce_secret: str = "",
        store: Store | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        require_choice("dpop", dpop, DPoPMode)
        require_choice("client_cert", client_cert, CertificateSource)
        if fault := too_short(dpop_nonce_secret):
            raise ConfigError([Problem("dpop_nonce_secret", fault)])
        self.dpop = dpop != "off"
        self.required = dpop == "require"
        self.policy = DPoPPolicy(nonces=Nonces(dpop_nonce_secret) if dpop_nonce_secret else None)
        known = {BINDING: self.dpop, certificate.BINDING: client_cert != "off"}
        self.bindings = frozenset(name for name, asked in known.items() if asked)
        self._source = client_cert
        self._trusts_proxy, self._trusts_socket = trusts_proxy, trusts_socket
        self.store = store if self.dpop and store is not None and store.shared else None
        self._undecided = Undecided(self.store, lambda _: WITHOUT_STORE)
        self._seen = SeenProofs(self.policy.life)
        life = int(self.policy.life * SECOND)
        self._once = Limit("dpop", f"1/{self.policy.life:.0f}s", "dpop", life, 1)
        self._clock = clock

    @property
    def algorithms(self) -> tuple[str, ...]:
        """The algorithms that proofs may be signed with; none where no proofs are taken."""
        return self.policy.algorithms if self.dpop else ()

    def nonce(self) -> str | None:
        """The nonce that the next proof has to hold; None where none is demanded."""
        nonces = self.policy.nonces
        return None if nonces is None else nonces.current(self._clock())

    def check(self, exchange: Exchange, credential: Credential, user: User) -> str | None:
        """Check that whoever sent a good token has what it is bound to.

        Returns:
            The name of the proof, which is to be counted; None where there is none.

        Raises:
            ProofError: the proof is missing, or not right.
            TokenError: the token was not sent in the way that it is bound to be sent.
        """
        bound = confirmation(user.claims, self.bindings)
        leaf, key = bound.get(certificate.BINDING), bound.get(BINDING)
        if leaf is not None and not certificate.matches(leaf, self._certificate(exchange)):
            raise TokenError("certificate", "the token is bound to a certificate that the client did not show")
        if credential.kind != "dpop":
            if key is not None:
                raise TokenError("binding", "the token is bound to a key, and was sent without the scheme DPoP")
            self._require(key)
            return None
        if key is None:
            raise TokenError("binding", "the token was sent with the scheme DPoP, and is bound to no key")
        proofs, request = exchange.lines(b"dpop"), self._request(exchange)
        return self.policy.verify(proofs, credential.value, key, request, self._clock())

    def needs(self, user: User) -> tuple[str, ...]:
        """What has to be shown besides a token that is good, for people who ask.

        Raises:
            TokenError: no such token is taken, whatever is shown.
        """
        bound = confirmation(user.claims, self.bindings)
        self._require(bound.get(BINDING))
        proofs = {
            BINDING: "a proof by the key that it is bound to, with the scheme DPoP (RFC 9449)",
            certificate.BINDING: "the certificate that it is bound to (RFC 8705)",
        }
        return tuple(proof for name, proof in proofs.items() if name in bound)

    def _require(self, key: str | None) -> None:
        if self.required and key is None:
            raise TokenError("binding", "the token is bound to no key, and only such tokens are taken")

    def _request(self, exchange: Exchange) -> Request:
        raw_path, host = exchange.raw_path or None, exchange.lines(b"host")
        return Request(exchange.method, url_of(exchange.scheme, host, raw_path, exchange.path, exchange.root_path))

    def _certificate(self, exchange: Exchange) -> str | None:
        """The thumbprint of the client's certificate, from whoever may tell it."""
        if self._source == "tls":
            return certificate.of_tls(exchange.scope.get("extensions"))
        peer = exchange.peer
        if not (self._trusts_socket if peer is None else self._trusts_proxy(peer)):
            return None
        return certificate.of_header(self._source, exchange.lines(self._source.encode()))

    def count(self, exchange: Exchange, user: User, proof: str) -> Awaitable[None] | None:
        """Note that a proof was seen; a wait where that takes one.

        Raises:
            ProofError: it was seen before.
            StoreUnavailableError: that cannot be told.
        """
        outer: int = exchange.scope.get(PROOFS_KEY, 0)
        exchange.scope[PROOFS_KEY] = outer + 1
        name = store_key(proof, str(outer)) if outer else proof
        if self.store is not None:
            return self._ask(self.store, name)
        now = self._clock()
        if self._seen.is_full(user.key, now):
            raise StoreUnavailableError("there is no room to remember proofs")
        if not self._seen.add(name, user.key, now):
            raise _replayed()
        return None

    async def _ask(self, store: Store, name: str) -> None:
        # A bucket that holds one unit, and is full again when the proof cannot be taken any more.
        try:
            verdict = await store.admit(Admission((Charge(self._once, f"{{dpop:{name}}}"),)))
        except StoreUnavailableError as error:
            self._undecided.note(error)
            raise
        if self._undecided.awaited:
            self._undecided.answered()
        if not verdict.admitted:
            raise _replayed()

    async def startup(self) -> None:
        """Connect to the store before the first proof does, and warn where it may forget proofs, or does not answer."""
        await self._undecided.startup(self.caution)

    async def caution(self) -> str | None:
        """What to warn of: that the store may forget proofs."""
        return None if self.store is None else await caution(self.store, "a proof that was seen is then taken again")

    async def aclose(self) -> None:
        """Let the store's connections go."""
        if self.store is not None:
            await self.store.aclose()


def _replayed() -> ProofError:
    return ProofError("proof_replayed", "the proof was seen before")
