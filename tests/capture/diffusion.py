"""Configurations of diffusers: one as published, and small ones of every class."""

from __future__ import annotations

from typing import Any

STABLE_DIFFUSION_1_5: dict[str, Any] = {
    "_class_name": "UNet2DConditionModel",
    "_diffusers_version": "0.6.0",
    "act_fn": "silu",
    "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280],
    "center_input_sample": False,
    "cross_attention_dim": 768,
    "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "out_channels": 4,
    "sample_size": 64,
    "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
}
"""The denoiser of Stable Diffusion 1.5."""

CONDITIONED: dict[str, Any] = {
    **STABLE_DIFFUSION_1_5,
    "block_out_channels": [32, 64],
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "cross_attention_dim": 48,
    "layers_per_block": 1,
    "sample_size": 16,
}
_TRANSFORMER = {"num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 2}

SMALL: dict[str, dict[str, Any]] = {
    "UNet2DModel": {
        "_class_name": "UNet2DModel",
        "block_out_channels": [32, 64],
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
        "sample_size": [16, 24],
    },
    "a UNet2DModel with classes": {
        "_class_name": "UNet2DModel",
        "block_out_channels": [32, 64],
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
        "sample_size": 16,
        "num_class_embeds": 10,
    },
    "UNet2DConditionModel": CONDITIONED,
    "UNet2DConditionModel as in SDXL": {
        **CONDITIONED,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 112,
        "attention_head_dim": [2, 4],
        "transformer_layers_per_block": [1, 2],
        "use_linear_projection": True,
    },
    "UNet2DConditionModel with projected texts": {
        **CONDITIONED,
        "addition_embed_type": "text",
        "encoder_hid_dim": 96,
        "encoder_hid_dim_type": "text_proj",
        "class_embed_type": "timestep",
        "addition_embed_type_num_heads": 4,
    },
    "DiTTransformer2DModel": {
        **_TRANSFORMER,
        "_class_name": "Transformer2DModel",
        "norm_type": "ada_norm_zero",
        "in_channels": 4,
        "out_channels": 8,
        "sample_size": 16,
        "num_vector_embeds": None,
    },
    "PixArtTransformer2DModel": {
        **_TRANSFORMER,
        "_class_name": "PixArtTransformer2DModel",
        "cross_attention_dim": 32,
        "caption_channels": 64,
        "sample_size": 16,
    },
    "SD3Transformer2DModel": {
        **_TRANSFORMER,
        "_class_name": "SD3Transformer2DModel",
        "in_channels": 4,
        "out_channels": 4,
        "sample_size": 16,
        "joint_attention_dim": 48,
        "caption_projection_dim": 32,
        "pooled_projection_dim": 40,
        "dual_attention_layers": [0],
        "qk_norm": "rms_norm",
    },
    "FluxTransformer2DModel": {
        "_class_name": "FluxTransformer2DModel",
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "num_layers": 1,
        "num_single_layers": 1,
        "in_channels": 16,
        "joint_attention_dim": 48,
        "pooled_projection_dim": 40,
        "axes_dims_rope": [4, 6, 6],
        "guidance_embeds": True,
    },
}
