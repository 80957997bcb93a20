"""The app within: found by its name, looked at without being called, and what it brings along or stands in the way."""
