"""Plan a sweep before anything is trained: which methods work on its backbone, and what they cost."""
