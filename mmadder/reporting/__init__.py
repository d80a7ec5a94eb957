"""How results look: figures, tables and pages."""
