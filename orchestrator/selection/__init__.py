"""Which method wins and how sure we are."""
