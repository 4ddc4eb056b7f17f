"""What every method needs: the contract, the folder format, the tools."""
