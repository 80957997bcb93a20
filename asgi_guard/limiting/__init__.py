"""What the RateLimit layer charges, and in whose name: buckets, accounts, and leases of requests under way."""
