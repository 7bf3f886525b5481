"""What the self-attention of a trained encoder does."""
