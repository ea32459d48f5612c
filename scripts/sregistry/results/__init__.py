"""What a run leaves under results/: typed receipts, and what changed."""
