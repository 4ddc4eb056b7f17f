"""Who runs a sweep: plan, lanes, search, tracking, selection."""
