"""What drafters learn from recorded answers: low-rank changes of their layers (LoRA)."""
