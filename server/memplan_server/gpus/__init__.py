"""GPU types as data, and what CUDA's libraries take on them."""
