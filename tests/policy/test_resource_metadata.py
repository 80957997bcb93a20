"""What a protected resource says of itself, where, and which identifiers it may have."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asgi_guard.errors import ConfigError
from asgi_guard.policy.resource_metadata import WELL_KNOWN, ResourceMetadata, audiences_of, is_url

ISSUER = "https://id.example.com"
NAMES = ["api.example.com", "localhost", "127.0.0.1", "[::1]", "xn--bcher-kva.example", "a-b.c_d.example"]


def faults(resource: str, servers: tuple[str, ...] = (ISSUER,), **members: Any) -> dict[str, str]:
    """What is wrong with these members, by name."""
    with pytest.raises(ConfigError) as caught:
        ResourceMetadata.of(resource, servers, **members)
    found = {fault.name: fault.message for fault in caught.value.problems}
    assert len(found) == len(caught.value.problems)
    return found


@pytest.mark.parametrize(
    ("resource", "path", "url"),
    [
        ("https://a.example", WELL_KNOWN, f"https://a.example{WELL_KNOWN}"),
        ("https://a.example/", WELL_KNOWN, f"https://a.example{WELL_KNOWN}"),
        ("https://a.example:8443", WELL_KNOWN, f"https://a.example:8443{WELL_KNOWN}"),
        ("https://a.example/mcp", f"{WELL_KNOWN}/mcp", f"https://a.example{WELL_KNOWN}/mcp"),
        ("https://a.example/v1/mcp/", f"{WELL_KNOWN}/v1/mcp/", f"https://a.example{WELL_KNOWN}/v1/mcp/"),
        ("https://a.example/caf%C3%A9", f"{WELL_KNOWN}/café", f"https://a.example{WELL_KNOWN}/caf%C3%A9"),
        ("http://127.0.0.1:8000/mcp", f"{WELL_KNOWN}/mcp", f"http://127.0.0.1:8000{WELL_KNOWN}/mcp"),
        ("http://[::1]:8000", WELL_KNOWN, f"http://[::1]:8000{WELL_KNOWN}"),
        ("http://api.localhost/", WELL_KNOWN, f"http://api.localhost{WELL_KNOWN}"),
    ],
)
def test_where_the_document_is(resource: str, path: str, url: str) -> None:
    """The well-known path goes between host and path, and requests name it decoded."""
    metadata = ResourceMetadata.of(resource, (ISSUER,))
    assert (metadata.path, metadata.url) == (path, url)


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({}, {}),
        ({"scopes_supported": ("b", "a", "b")}, {"scopes_supported": ["a", "b"]}),
        ({"scopes_supported": (), "resource_name": None}, {}),
        (
            {"dpop_signing_alg_values_supported": ("ES256",), "dpop_bound_access_tokens_required": True},
            {"dpop_signing_alg_values_supported": ["ES256"], "dpop_bound_access_tokens_required": True},
        ),
        ({"dpop_bound_access_tokens_required": False}, {}),
        ({"tls_client_certificate_bound_access_tokens": True}, {"tls_client_certificate_bound_access_tokens": True}),
        ({"resource_name": "Käse"}, {"resource_name": "Käse"}),
        (
            {"resource_documentation": "http://a.example/d?x=1#y"},
            {"resource_documentation": "http://a.example/d?x=1#y"},
        ),
    ],
)
def test_what_the_document_says(members: dict[str, Any], expected: dict[str, Any]) -> None:
    """The document names the resource, the issuers and the header, and leaves out what there is nothing to say of."""
    metadata = ResourceMetadata.of("https://a.example", (ISSUER,), **members)
    assert json.loads(metadata.document) == {
        "resource": "https://a.example",
        "authorization_servers": [ISSUER],
        "bearer_methods_supported": ["header"],
        **expected,
    }


def test_issuers_keep_their_order() -> None:
    """Clients take the first issuer unless they know better, so the order stays, and each is named once."""
    servers = ("https://z.example", ISSUER, "https://z.example", "https://a.example/tenant/")
    document = json.loads(ResourceMetadata.of("https://a.example", servers).document)
    assert document["authorization_servers"] == ["https://z.example", ISSUER, "https://a.example/tenant/"]


@pytest.mark.parametrize(
    "resource",
    [
        "", "api", "/mcp", "a.example/mcp", "https://", "https:///mcp", "https:/a.example", "https://a.example/#f",
        "https://a.example#", "https://a.example/?", "https://a.example?x=1", "https://u@a.example",
        "https://u:p@a.example", "https://@a.example", "https://a.example:99999", "https://[::1", "https://a b.example",
        "https://a.example/\n", "https://a.example/\"x", "https://a.example/\\x", "https://bücher.example", "https://a.example/%",
        "https://a.example/%zz", "https://a.example/%2",
    ],
)  # fmt: skip
def test_what_is_no_identifier(resource: str) -> None:
    """An identifier is an absolute URL without user, query and fragment, be they empty."""
    assert faults(resource) == {
        "resource": "write the URL that clients call: https://host/path, without user, query or fragment"
    }


@pytest.mark.parametrize(
    ("resource", "message"),
    [
        ("http://a.example", "use https"),
        ("http://10.0.0.1/mcp", "use https"),
        ("http://localhost.example", "use https"),
        ("ftp://a.example", "use https"),
        ("https://A.example/Mcp", "that are refused: https://a.example/Mcp"),
        ("HTTPS://a.example", "that are refused: https://a.example"),
        ("https://a.example:443/mcp", "that are refused: https://a.example/mcp"),
        ("https://a.example:", "that are refused: https://a.example"),
        ("https://a.example:08443", "that are refused: https://a.example:8443"),
        ("http://localhost:80", "that are refused: http://localhost"),
        ("https://[2001:DB8::1]:8443", "that are refused: https://[2001:db8::1]:8443"),
        ("https://[2001:db8:0::1]", "'2001:db8:0::1' is neither a host's name nor its address"),
        ("https://1.2.3", "'1.2.3' is neither"),
        ("https://a.example.", "'a.example.' is neither"),
        ("https://a..example", "'a..example' is neither"),
        ("https://*.example", "'*.example' is neither"),
        ("https://a.example//mcp", "not all read that alike"),
        ("https://a.example/a/../mcp", "not all read that alike"),
        ("https://a.example/./", "not all read that alike"),
        ("https://a.example/%2E%2e/", "not all read that alike"),
        ("https://a.example/a%2Fb", "not all read that alike"),
        ("https://a.example/a%5cb", "not all read that alike"),
        ("https://a.example/%00", "not all read that alike"),
        ("https://a.example/[a]", "not all read that alike"),
    ],
)
def test_identifiers_that_clients_write_differently(resource: str, message: str) -> None:
    """An identifier that a client would change before it compares it is refused, with what to write instead."""
    assert message in faults(resource)["resource"]


def test_all_faults_at_once() -> None:
    """Everything that is wrong is told together, by member."""
    found = faults("http://a.example", (), resource_documentation="docs")
    assert set(found) == {"resource", "authorization_servers", "resource_documentation"}


@pytest.mark.parametrize(
    ("url", "whole"),
    [
        ("https://a.example", True),
        ("http://a.example/d?x=1&y=%20#z", True),
        ("https://a.example/\"x", False),
        ("https://a.example/ x", False),
        ("https://a.example/\r\nx:y", False),
        ("https://", False),
        ("https://a.example:x", False),
        ("javascript:alert(1)", False),
        ("ftp://a.example/d", False),
        ("/d", False),
        ("", False),
    ],
)  # fmt: skip
def test_which_urls_are_whole(url: str, whole: bool) -> None:
    """A page is named by an absolute URL of the web that can stand in a header and in quotes as it is."""
    assert is_url(url) is whole


@pytest.mark.parametrize(
    ("resource", "audiences"),
    [
        ("https://a.example", ("https://a.example", "https://a.example/")),
        ("https://a.example/", ("https://a.example", "https://a.example/")),
        ("http://[::1]:8000", ("http://[::1]:8000", "http://[::1]:8000/")),
        ("https://a.example/mcp", ("https://a.example/mcp",)),
        ("https://a.example/mcp/", ("https://a.example/mcp/",)),
        ("https://", ("https://",)),
        ("https:///", ("https:///",)),
        ("http://[", ("http://[", "http://[/")),
        ("api", ("api",)),
        ("", ("",)),
    ],
)
def test_the_audience_of_a_resource(resource: str, audiences: tuple[str, ...]) -> None:
    """Tokens name the resource itself; only where it has no path, the slash behind the host makes no difference."""
    assert audiences_of(resource) == audiences


SEGMENTS = st.lists(st.text("abAZ09-_~!$&'()*+,;=:@", min_size=1, max_size=5), max_size=3)


@given(
    host=st.sampled_from(NAMES), port=st.none() | st.integers(1, 65535), segments=SEGMENTS, slash=st.booleans()
)  # fmt: skip
@example(host="api.example.com", port=None, segments=[], slash=True)
@example(host="[::1]", port=8443, segments=["mcp"], slash=True)
def test_the_address_leads_back_to_the_identifier(
    host: str, port: int | None, segments: list[str], slash: bool
) -> None:
    """Without the well-known path the address is the identifier, which stands in the document letter by letter."""
    authority = host if port in (None, 443) else f"{host}:{port}"
    resource = f"https://{authority}{''.join(f'/{segment}' for segment in segments)}{'/' if slash else ''}"
    metadata = ResourceMetadata.of(resource, (ISSUER,))
    identifier = json.loads(metadata.document)["resource"]
    assert identifier == resource
    assert metadata.url.replace(WELL_KNOWN, "", 1) == (resource if segments else resource.rstrip("/"))
    assert resource in audiences_of(resource)


@given(st.text(max_size=30) | st.text('htps:/.@?#[]%2f\\"aA1 \n', max_size=30).map(lambda rest: f"https://{rest}"))
@example("https://[")
@example("https://a:\u0661")
@example("https://a\u2100b.example")
def test_no_text_breaks_the_header(resource: str) -> None:
    """Whatever is configured is refused, or makes an address that can be quoted in a header."""
    assert resource in audiences_of(resource)
    try:
        metadata = ResourceMetadata.of(resource, (ISSUER,))
    except ConfigError:
        return
    assert is_url(metadata.url)
    assert not set(metadata.url) & set('"\\ ')
