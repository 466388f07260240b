"""Source encoders: crystals to source embeddings, one module per kind of model."""
