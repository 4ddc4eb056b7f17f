"""Long-lived Ray Train workers that train trial after trial on one backbone."""
