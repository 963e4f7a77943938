"""Constraints of answers, compiled by llguidance: the only room that imports it."""
