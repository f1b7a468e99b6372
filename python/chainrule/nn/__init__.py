"""Networks: layers, losses, initialization, parameters, plans, memory, files."""
