"""What is known of source models."""
