"""The phases of one sweep."""
