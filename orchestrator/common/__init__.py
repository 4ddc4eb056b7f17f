"""What every folder may use, and what uses nothing of theirs."""
