"""What cuDNN itself says that its convolutions take, asked without a GPU or measured on one."""
