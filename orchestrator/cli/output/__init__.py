"""What each command prints, for people and for machines; a module per command, so that each imports only its own."""
