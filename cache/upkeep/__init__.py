"""Keeping the database whole: checks, backups, repair, and forgetting on request."""
