"""What `asgi_guard.settings` is made of: sections, values and variables, and what is told of those not to be used."""
