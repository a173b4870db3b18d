"""Pure checks of texts by programs. No tensor in sight."""
