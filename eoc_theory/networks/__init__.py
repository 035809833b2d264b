"""Networks as plain data: layers in a graph, built by hand or by a builder, and what can be asked of them."""
