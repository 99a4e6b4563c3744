"""What one trained network computes: graph, operators, readers of networks and samples; knows no hardware."""

ACCELSIM_SIBLING = "0.1.0"
