"""Generated from `proto/memplan/v1`; `make proto` writes it."""
