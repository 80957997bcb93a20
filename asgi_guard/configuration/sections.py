"""The sections of the settings: one a layer, with a default and a description for each field."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, SecretStr

from asgi_guard.configuration.section_base import Section
from asgi_guard.configuration.values import (
    AnyNames,
    AnyNamesOrNone,
    APIKeys,
    Names,
    NamesOrNone,
    Plans,
    ProbePath,
    Secret,
    issuers,
    revealed,
)
from asgi_guard.identity.issuer import DEFAULT_ALGORITHMS
from asgi_guard.middleware.request_id import Generator, Trusted
from asgi_guard.operations.draining import DrainSignal
from asgi_guard.policy.address import LOCAL
from asgi_guard.policy.certificate import CertificateSource
from asgi_guard.policy.claims import MAX_LEEWAY, SCOPE_CLAIMS, Profile
from asgi_guard.policy.dpop import PROOF_ALGORITHMS, DPoPMode
from asgi_guard.policy.introspection import issuer_of
from asgi_guard.policy.log_record import LogFormat
from asgi_guard.policy.proxies import MAX_HOPS, ForwardedHeader
from asgi_guard.policy.ratelimit_headers import Style
from asgi_guard.policy.rates import OnStoreFailure
from asgi_guard.policy.resource_metadata import audiences_of, can_be_asked
from asgi_guard.policy.routes import Route
from asgi_guard.policy.security import Preset


class StoreSettings(Section):
    """Where buckets and revocations are kept."""

    url: Secret = Field(
        default=SecretStr("memory://"),
        description="`memory://`, `redis://`, `rediss://`, `unix://`, `redis+cluster://` or `redis+sentinel://`",
    )
    timeout: float = Field(default=0.05, gt=0, le=10, description="seconds until an answer of the store counts as none")
    prefix: str = Field(default="asgi-guard:", max_length=64, description="put before every key in Redis")
    clock: Literal["server", "worker"] = Field(
        default="server",
        description="whose time counts: `worker` where scripts may not ask for the server's; clocks then have to "
        "differ by far less than the shortest window of a limit",
    )
    max_keys: int = Field(default=100_000, ge=1000, description="how many buckets the memory holds")

    @property
    def shared(self) -> bool:
        """Whether other processes see the same buckets."""
        return not revealed(self.url).startswith("memory:")


class IssuerSettings(Section):
    """One of several issuers, for `issuers` of `AuthSettings`. What it leaves out is as that section says.

    Its fields are `issuer`, `audience`, `jwks_url`, `algorithms`, `leeway`, `max_token_age`, `max_token_lifetime`,
    `profile`, `required_claims` and `scope_claims`, of the same meaning as there. Without a `jwks_url` of its own its
    keys are discovered.
    """

    issuer: str
    audience: AnyNames | None = None
    jwks_url: str | None = None
    algorithms: NamesOrNone | None = None
    leeway: float | None = Field(default=None, ge=0, le=MAX_LEEWAY)
    max_token_age: float | None = Field(default=None, gt=0)
    max_token_lifetime: float | None = Field(default=None, gt=0)
    profile: Profile | None = None
    required_claims: AnyNames | None = None
    scope_claims: AnyNamesOrNone | None = None


if TYPE_CHECKING:
    Issuers: TypeAlias = Sequence[IssuerSettings]  # as in values.py
else:
    Issuers = Annotated[tuple[IssuerSettings, ...], BeforeValidator(issuers)]


class AuthSettings(Section):
    """Who is believed. On once an issuer, an introspection endpoint or a key is named.

    Every path then needs an identity unless a row says not.
    """

    issuer: str | None = Field(default=None, description="the issuer whose tokens are accepted, as in its `iss`")
    audience: AnyNames = Field(
        default=(), description="this API's names, of which a token has to name one in `aud`; else the resource's"
    )
    jwks_url: str | None = Field(
        default=None, description="where the issuer's keys are, if not by OIDC discovery: then `iss` may be any text"
    )
    algorithms: NamesOrNone = Field(default=DEFAULT_ALGORITHMS, description="the signature algorithms that are allowed")
    leeway: float = Field(default=30, ge=0, le=MAX_LEEWAY, description="seconds by which the issuer's clock may differ")
    max_token_age: float | None = Field(
        default=None, gt=0, description="seconds after which a token is too old, expired or not"
    )
    max_token_lifetime: float | None = Field(
        default=None, gt=0, description="seconds from `iat` to `exp` beyond which a token is refused from the first"
    )
    profile: Profile = Field(
        default="any", description="`at+jwt` takes access tokens marked as such only (RFC 9068), `any` all tokens"
    )
    required_claims: AnyNames = Field(default=(), description="claims that a token has to have, `NAME` or `NAME=VALUE`")
    scope_claims: AnyNamesOrNone = Field(
        default=SCOPE_CLAIMS,
        min_length=1,
        description="where scopes are: the first that is there; `a.b` goes into objects",
    )
    issuers: Issuers = Field(
        default=(),
        description='more issuers, as JSON: `[{"issuer": "https://...", "audience": "api"}]`; else as the first',
    )
    introspection_url: str | None = Field(
        default=None, description="where opaque tokens are asked about (RFC 7662), and all tokens without an issuer"
    )
    introspection_client_id: str | None = Field(default=None, description="by which this API is known there")
    introspection_client_secret: Secret | None = Field(default=None, description="the secret that goes with it")
    introspection_issuer: str | None = Field(
        default=None,
        description="whose opaque tokens these are, as in `iss`; else the issuer of that origin, else the only one",
    )
    introspection_unsafe_any_audience: bool = Field(
        default=False, description="take opaque tokens that were made for another API, or for none in particular"
    )
    introspection_unsafe_any_type: bool = Field(
        default=False,
        description="take opaque tokens whatever sort they are said to be, and where none is said: refresh tokens too",
    )
    introspection_unsafe_subject: Names = Field(
        default=(),
        description="what says who it is where an opaque token has no `sub`: `username`, which may change hands or be "
        "chosen as another one's `sub`, or `client_id`, which makes one of all users of a client",
    )
    cookie: str | None = Field(
        default=None, pattern=r"^[A-Za-z0-9_-]+$", description="a cookie that may hold the token"
    )
    unsafe_websocket_query_token: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9_-]+$",
        description="a query parameter that may hold the token of a WebSocket handshake, which others then log",
    )
    api_keys: APIKeys = Field(default=(), description="accepted API keys: `name=SHA256, ...`, or JSON with scopes")
    api_key_header: str = Field(
        default="x-api-key", pattern=r"^[A-Za-z0-9-]+$", description="the header that API keys come in"
    )
    revocation: bool = Field(default=False, description="whether tokens are looked up among the revoked")
    revocation_on_store_failure: Literal["allow", "deny"] = Field(
        default="deny", description="what a token meets that cannot be looked up"
    )
    dpop: DPoPMode = Field(
        default="off",
        description="tokens bound to a key (RFC 9449): `accept` them with their proof, `require` them, or refuse them",
    )
    dpop_nonce_secret: Secret | None = Field(
        default=None, description="the key of the nonces that proofs then have to hold, the same for all workers"
    )
    client_cert: CertificateSource = Field(
        default="off",
        description="where the certificate is told that tokens may be bound to (RFC 8705): by the server (`tls`), or "
        "in the header of this name, by trusted proxies",
    )
    resource: str | None = Field(
        default=None, description="the URL that clients call, which then tells them whom to ask for tokens (RFC 9728)"
    )
    resource_name: str | None = Field(default=None, description="what the resource is called, for people")
    resource_documentation: str | None = Field(
        default=None, description="the URL of a page on the resource, for developers"
    )

    @property
    def on(self) -> bool:
        """Whether anybody is believed."""
        return bool(self.trusted or self.api_keys or self.introspection_url)

    @property
    def audiences(self) -> tuple[str, ...]:
        """What tokens have to name: the audience, or without one the resource, as clients ask for it (RFC 8707)."""
        return tuple(self.audience) or (() if self.resource is None else audiences_of(self.resource))

    @property
    def trusted(self) -> tuple[IssuerSettings, ...]:
        """Every issuer whose tokens are accepted, with all that holds for it."""
        own = self._own
        first = () if self.issuer is None else (IssuerSettings(**own),)
        inherited = {name: value for name, value in own.items() if name not in ("issuer", "jwks_url")}
        others = (each.model_dump(exclude_none=True) for each in self.issuers)
        return (*first, *(IssuerSettings(**{**inherited, **other}) for other in others))

    @property
    def introspected(self) -> IssuerSettings | None:
        """The issuer whose opaque tokens are asked about, with all that holds for them; None if none are.

        It has no name where that would have to be said, since it could be any of several.
        """
        if self.introspection_url is None:
            return None
        names = [each.issuer for each in self.trusted]
        name = self.introspection_issuer or issuer_of(self.introspection_url, names, self.issuer)
        known = (each for each in self.trusted if each.issuer == name)
        return next(known, None) or IssuerSettings(**{**self._own, "issuer": name})

    @property
    def _own(self) -> dict[str, Any]:
        """What holds for an issuer that says nothing else."""
        return {name: getattr(self, name) for name in IssuerSettings.model_fields} | {"audience": self.audiences}

    def resource_metadata(self, routes: Iterable[Route]) -> dict[str, Any]:
        """What the resource says of itself (RFC 9728), member by member; nothing if no client could learn from it."""
        servers = [each.issuer for each in self.trusted if each.jwks_url is None or can_be_asked(each.issuer)]
        if self.resource is None or not servers:
            return {}
        return {
            "resource": self.resource,
            "authorization_servers": servers,
            "scopes_supported": [scope for route in routes for scope in (*route.scopes, *route.any_scopes)],
            "resource_name": self.resource_name,
            "resource_documentation": self.resource_documentation,
            "dpop_signing_alg_values_supported": () if self.dpop == "off" else PROOF_ALGORITHMS,
            "dpop_bound_access_tokens_required": self.dpop == "require",
            "tls_client_certificate_bound_access_tokens": self.client_cert != "off",
        }


class RateSettings(Section):
    """How much each client may ask. On once a limit is set, here or in a row, of messages too."""

    limit: str = Field(
        default="", description="the default limits: `60/second burst 120 by user; 10/second by anonymous`"
    )
    on_store_failure: OnStoreFailure = Field(
        default="local",
        description="what a request meets when the store does not answer; `local`: this process's own buckets",
    )
    headers: Style = Field(default="draft", description="how limits are told: `RateLimit`, `X-RateLimit-*`, or not")
    shadow: bool = Field(default=False, description="only log what would be refused")
    plans: Plans = Field(
        default={},
        description='limits of identities by plan, as JSON: `{"pro": "90/second by user"}`, in place of the default',
    )
    plan_claim: str | None = Field(
        default=None, max_length=256, description="the claim that names a token's plan; an API key's entry has `plan`"
    )
    exempt: AnyNames = Field(
        default=(), description="whom no limit applies to: addresses, networks, `user:SUBJECT`, `api-key:NAME`"
    )
    messages: str = Field(
        default="", description="messages that each WebSocket may send, as in `20/second burst 40`; none means any"
    )
    deny_cache: float = Field(
        default=1, ge=0, le=60, description="seconds for which a client known to be over a limit costs no store call"
    )
    workers: int = Field(default=1, ge=1, description="processes that share the store; each takes its part in `local`")
    ipv6_prefix: int = Field(default=64, ge=32, le=128, description="bits of an IPv6 address that tell clients apart")


class CORSSettings(Section):
    """Which pages may call. On once an origin is named."""

    allow_origins: Names = Field(
        default=(),
        description="origins whose pages may call: exact, `https://*.example.com`, or `*`",
    )
    allow_methods: Names = Field(default=(), description="methods beyond GET, HEAD and POST; `*` for all")
    allow_headers: Names = Field(
        default=(), description="request headers that scripts may set; `*` for all but authorization"
    )
    allow_credentials: bool = Field(
        default=False, description="whether cookies are sent, and answers to them may be read"
    )
    expose_headers: Names = Field(
        default=(), description="response headers that scripts may read, beside the guard's own"
    )
    max_age: int | None = Field(default=None, description="seconds for which browsers may remember a preflight")
    preflight_status: int = Field(default=204, description="the status of an allowed preflight, 200 to 299")
    unsafe_insecure_origins: bool = Field(
        default=False, description="allow cookies for http origins, which anyone on the network can imitate"
    )
    unsafe_public_suffixes: bool = Field(
        default=False, description="allow `*.` before names under which anyone can register, such as `github.io`"
    )
    unsafe_private_network: bool = Field(
        default=False, description="answer Private Network Access, which browsers gave up: legacy"
    )
    unsafe_debug: bool = Field(
        default=False, description="tell allowed origins what is allowed where a preflight of theirs is refused"
    )


class CSRFSettings(Section):
    """Whose pages may act for users whom the app itself knows by a cookie. Off, unless said."""

    mode: Literal["off", "log", "enforce"] = Field(
        default="off", description="whether requests that other sites can forge are refused, or only logged"
    )
    trusted_origins: Names = Field(
        default=(), description="origins whose pages may act, beside those that CORS allows with credentials"
    )
    exempt: AnyNames = Field(
        default=(), description="paths at which nothing is refused, such as `/hooks/*`; also rows with `csrf` false"
    )
    session_cookie: str | None = Field(
        default=None, description="the cookie of the app's own sessions, to which pages' tokens are bound"
    )
    secret: Secret | None = Field(
        default=None,
        description="the key that signs these tokens, 32 random characters or more; without it there are none",
    )
    previous_secret: Secret | None = Field(
        default=None, description="the secret before it, whose tokens are still taken"
    )
    token_header: str = Field(default="x-csrf-token", description="the header in which pages send their token")
    unsafe_insecure_origins: bool = Field(
        default=False, description="trust http origins too, which anyone on the network can imitate"
    )


class SecuritySettings(Section):
    """Security headers. On."""

    preset: Preset = Field(
        default="api", description="`api` for no pages, `page`, `docs` for Swagger UI and ReDoc, or `off`"
    )
    csp: str | None = Field(
        default=None,
        description="another Content-Security-Policy; `'nonce'` in it is the response's; `off` for none",
    )
    csp_report_only: str | None = Field(default=None, description="a Content-Security-Policy-Report-Only beside it")
    hsts: str | None = Field(default=None, description="another Strict-Transport-Security; `off` for none")
    referrer_policy: str | None = Field(default=None, description="another Referrer-Policy; `off` for none")
    permissions_policy: str | None = Field(default=None, description="another Permissions-Policy; `off` for none")
    frame_options: str | None = Field(default=None, description="another X-Frame-Options; `off` for none")
    opener_policy: str | None = Field(default=None, description="another Cross-Origin-Opener-Policy; `off` for none")
    embedder_policy: str | None = Field(
        default=None, description="another Cross-Origin-Embedder-Policy; `off` for none"
    )
    resource_policy: str | None = Field(
        default=None, description="another Cross-Origin-Resource-Policy; `off` for none"
    )
    cache_control: str | None = Field(
        default=None, description="the Cache-Control of responses without one; identified users get `no-store`"
    )
    reporting_endpoints: Names = Field(
        default=(), description="where browsers send reports: `default=https://reports.example.com/csp`"
    )


class HostsSettings(Section):
    """Which names this server answers to. On once one is named."""

    allowed: Names = Field(default=(), description="host names; `*.example.com` for all below it")
    https_redirect: bool = Field(default=False, description="whether plain http is redirected to https")
    exempt: AnyNames = Field(
        default=(), description="paths that are served whatever the host and the scheme, such as `/healthz`"
    )


class ProxySettings(Section):
    """Which proxies are believed. Nobody is, unless said."""

    trusted: Names = Field(default=(), description="addresses and networks (CIDR) of the proxies in front")
    header: ForwardedHeader = Field(default="x-forwarded-for", description="the one header that they write")
    hops: int = Field(
        default=0,
        ge=0,
        le=MAX_HOPS,
        description="how many proxies append to it, where nobody knows their addresses; `0` goes by the networks",
    )
    host: bool = Field(
        default=False, description="whether they always write the host too: `x-forwarded-host`, or `host=`"
    )


class RequestIDSettings(Section):
    """Request ids. On."""

    header: str = Field(default="x-request-id", description="the header that ids come in and go out by")
    trust_incoming: Trusted = Field(
        default="anyone", description="whose well-formed ids and trace contexts are taken over; `proxies`: trusted ones"
    )
    generator: Generator = Field(default="uuid7", description="how new ids are made")


class LogSettings(Section):
    """The access log, on standard output. On."""

    format: LogFormat = Field(default="json", description="the schema; `json` is `otel`")
    sample: float = Field(default=1.0, ge=0, le=1, description="the share of ordinary exchanges that are logged")
    slow_ms: float | None = Field(
        default=None,
        gt=0,
        description="requests that take this many milliseconds or more are marked as slow; of streams, the first byte",
    )
    gcp_project: str | None = Field(
        default=None,
        pattern="^[a-z][a-z0-9:.-]{4,61}[a-z0-9]$",
        description="the project whose traces `gcp` lines join",
    )


class MetricsSettings(Section):
    """Metrics. Off, unless said."""

    path: str = Field(default="", description="the path of Prometheus's scrapes, such as `/metrics`; empty for none")
    allow: NamesOrNone = Field(default=LOCAL, description="addresses and networks (CIDR) whose scrapes are answered")
    otel: bool = Field(default=False, description="whether to measure with OpenTelemetry's metrics API")

    @property
    def on(self) -> bool:
        """Whether anything is measured."""
        return bool(self.path) or self.otel


class HealthSettings(Section):
    """Probes and draining. On."""

    live_path: ProbePath = Field(default="/health/live", description="the path of liveness; `off` for none")
    ready_path: ProbePath = Field(default="/health/ready", description="the path of readiness; `off` for none")
    drain_seconds: float = Field(default=0, ge=0, le=3600, description="seconds to serve on after SIGTERM, not ready")
    drain_signal: DrainSignal | None = Field(default=None, description="a signal that begins draining too")
    drain_file: str = Field(default="", description="a file that begins draining, once it is there; empty for none")
    drain_path: str = Field(
        default="", description="where a POST of this machine's own begins draining; empty for none"
    )
    max_requests: int = Field(default=0, ge=0, description="requests after which a worker drains and ends; 0 for never")
    check_timeout: float = Field(default=1, gt=0, le=60, description="seconds that each check of readiness has")
    details: NamesOrNone = Field(
        default=LOCAL,
        description="addresses and networks (CIDR) that readiness tells which check failed",
    )

    @property
    def drains(self) -> bool:
        """Whether anything begins draining."""
        begun_by = (self.drain_seconds, self.drain_signal, self.drain_file, self.drain_path, self.max_requests)
        return any(begun_by)
