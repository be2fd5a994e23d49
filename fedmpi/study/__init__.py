"""Studies: a recipe in a TOML file becomes runs, measures of them, tables, figures, and verdicts on
claims."""
