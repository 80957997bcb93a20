"""The decisions: pure and synchronous.

Nothing here does I/O, reads a clock (time is an argument), reads the environment or logs. What these modules decide,
`asgi_guard.middleware` carries out.
"""
