"""What a sweep would do: which methods work, and what they take."""
