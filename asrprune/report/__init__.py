"""Result files, tables, figures and the report."""
