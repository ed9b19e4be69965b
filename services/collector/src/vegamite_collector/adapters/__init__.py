"""The collector's ports in terms of real things: exchanges through ccxt, the demo market, PostgreSQL."""
