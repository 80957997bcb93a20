"""Who vouches for a client: issuers, their keys and what they say of opaque tokens; and whose a token is by proof."""
