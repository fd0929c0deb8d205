"""How good a network is: metrics, accuracy, agreement, and where the loss comes from."""
