"""Data files of every format, read in batches."""
