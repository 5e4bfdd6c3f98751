"""What is shown of a job: rows joined by sha256, and the tables made from them. No TensorFlow, numpy or scipy."""
