"""What a job's convolutions take as workspace: by our model, by cuDNN's word, on a GPU.

    python bench/cudnn_workspaces.py torchvision/resnet50 --gpu nvidia-a100-40gb \\
        --batch-sizes 8,32,128 --cudnn FOLDER [--rows N] [--json FILE] [--measure] [--sensitivity]

The job is given as to `memplan plan`: a model's name with options, or a job file. For each batch
size stand the different convolutions of a training step, those that differ most first, and the peak
reserved bytes of the replay with our workspaces, with cuDNN's first choices, with the largest of
its first ten, and with measured ones. `--measure` runs each convolution on this machine's GPU.
`docs/convolutions.md` says how to get cuDNN and what is known of its word.
"""

from __future__ import annotations

import sys

from workspaces.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
