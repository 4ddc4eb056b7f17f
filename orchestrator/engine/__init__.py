"""What one process does with one backbone: attach, train, pack, score, save. Knows no Ray."""
