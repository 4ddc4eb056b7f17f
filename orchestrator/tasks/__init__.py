"""Rows in, tokens and a metric out."""
