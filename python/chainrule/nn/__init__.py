"""What a network is and how it runs: layers, losses, parameters, plans, files."""
