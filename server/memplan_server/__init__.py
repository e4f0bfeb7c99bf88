"""The memplan server: a training job's GPU memory, before it runs."""
