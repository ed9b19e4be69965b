"""What the API decides, as pure code: queries, cursors, fills, messages and sessions; no I/O, no clock, no log."""
