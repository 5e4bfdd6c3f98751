"""Ways to make a trained model smaller."""
