"""Networks as plain data: graphs of layers, the builders that make them, and queries on them."""
