"""Tree ensembles: one plain form for boosted trees, forests and isolation forests, and its lowering."""
