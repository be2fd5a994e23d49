"""How values are written on the wire."""
