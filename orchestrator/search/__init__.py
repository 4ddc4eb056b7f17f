"""The Search core, free of Ray, and its thin Ray Tune adapters."""
