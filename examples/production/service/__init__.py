"""Payments: one service, as it runs in production."""
