"""How a request runs: the chain of layers, what is known of the request in hand, and its response on the way out."""
