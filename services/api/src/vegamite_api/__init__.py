"""The API: serves candles and trades, as history and live, and the chart page."""
