"""How a network is trained: the loop over epochs, optimizers, stopping rules, history."""
