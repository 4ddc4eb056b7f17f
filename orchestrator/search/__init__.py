"""The search: which configuration of which method is tried next, and which trials continue. It knows no Ray."""
