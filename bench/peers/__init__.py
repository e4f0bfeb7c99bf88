"""Other ways to the same question, run beside the estimates."""
