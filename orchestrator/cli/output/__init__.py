"""Output of the commands, as text and as JSON. Each command has its module, so that it imports only what it needs."""
