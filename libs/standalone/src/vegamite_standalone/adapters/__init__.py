"""What standalone itself asks of its database: which markets to track at first, how jobs go, how all is."""
