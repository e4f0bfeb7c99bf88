"""Tensors without data: what is known of their values, and libraries made to take them for real.

Captures and the server's simulation use it. Importing its modules imports torch.
"""
