"""Conversations as they were said: kept, searched, carried to other machines."""
