"""Under which names strangers register their own: `*.` before one of them would name everyone's sites.

This is no copy of the Public Suffix List, which has 10,000 entries and changes weekly, but what operators would come
upon: every top-level domain; the categories under which most country domains register (`co.uk`, `com.au`); and the
hosts that give customers a name of their own below theirs. What is not here is taken for a registered domain.
"""

from __future__ import annotations

_CATEGORIES = frozenset(
    {
        "ac", "asn", "biz", "co", "com", "edu", "firm", "gen", "go", "gob", "gouv", "gov", "gr", "id", "in", "inf",
        "info", "int", "law", "ltd", "me", "mil", "mobi", "ne", "net", "nhs", "nic", "nom", "or", "org", "plc",
        "police", "pro", "sch", "school", "tm", "web",
    }
)  # fmt: skip
"""Second-level names under a country's domain of two letters."""

_HOSTS = frozenset(
    {
        # Sites, functions and containers
        "amplifyapp.com", "appspot.com", "a.run.app", "run.app", "azurecontainerapps.io", "azureedge.net",
        "azurestaticapps.net", "azurewebsites.net", "cloudapp.azure.com", "cloudapp.net", "cloudfront.net",
        "cloudfunctions.net", "csb.app", "deno.dev", "deno.net", "elasticbeanstalk.com", "execute-api.amazonaws.com",
        "firebaseapp.com", "fly.dev", "fly.io", "framer.app", "framer.website", "gitbook.io", "github.dev", "github.io",
        "githubpreview.dev", "gitlab.io", "glitch.me", "herokuapp.com", "herokussl.com", "hf.space", "koyeb.app",
        "lambda-url.us-east-1.on.aws", "lovable.app", "modal.run", "netlify.app", "ngrok-free.app", "ngrok.app",
        "ngrok.dev", "ngrok.io", "now.sh", "on.aws", "on-aptible.com", "ondigitalocean.app", "onrender.com",
        "openshiftapps.com", "ovh.cloud", "pages.dev", "pythonanywhere.com", "railway.app", "up.railway.app",
        "readthedocs.io", "readthedocs-hosted.com", "render.com", "repl.co", "replit.app", "replit.dev",
        "s3.amazonaws.com",
        "scalingo.io", "scw.cloud", "stackblitz.io", "streamlit.app", "streamlitapp.com", "surge.sh", "supabase.co",
        "trycloudflare.com", "vercel.app", "vercel.dev", "web.app", "webcontainer.io", "windows.net",
        "web.core.windows.net", "blob.core.windows.net", "workers.dev", "loca.lt", "lhr.life", "devtunnels.ms",
        # Blogs, shops and dynamic DNS
        "blogspot.com", "bubbleapps.io", "carrd.co", "duckdns.org", "dyndns.org", "hashnode.dev", "myshopify.com",
        "myftp.org", "no-ip.org", "nip.io", "sslip.io", "notion.site", "shopifypreview.com", "squarespace.com",
        "tumblr.com", "webflow.io", "weebly.com", "wixsite.com", "wixstudio.com", "wordpress.com", "wpengine.com",
        "backblazeb2.com", "digitaloceanspaces.com", "translate.goog", "usercontent.goog", "githubusercontent.com",
        # Domains of more than two letters, and countries with their own customs
        "uk.com", "us.com", "eu.com", "de.com", "gb.net", "br.com", "cn.com", "jp.net", "eu.org", "co.com",
        "asso.fr", "gob.mx", "gov.scot", "k12.us", "lg.jp", "ad.jp", "ed.jp", "lib.us", "parliament.uk",
    }
)  # fmt: skip


def is_public_suffix(name: str) -> bool:
    """Tell whether strangers register names right below this one. `name` is lower case."""
    first, _, parent = name.partition(".")
    if not parent:
        return True
    return name in _HOSTS or (len(parent) == 2 and "." not in parent and first in _CATEGORIES)
