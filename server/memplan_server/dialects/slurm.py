"""Slurm: lines of a batch script."""

from __future__ import annotations

import re

from memplan_server.dialects.wanted import Wanted

__all__ = ["batch_script"]

_FEATURE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


def batch_script(request: Wanted) -> str | None:
    """GPUs by the names of their types as node features, which a site gives its nodes.

    https://slurm.schedmd.com/sbatch.html
    """
    features = [c.gpu_type.name for c in request.candidates if _FEATURE.fullmatch(c.gpu_type.name)]
    if not features:
        return None
    ranks = request.rank_count
    gpus = ["--gres=gpu:1"] if ranks == 1 else [f"--ntasks={ranks}", "--gpus-per-task=1"]
    options = [*gpus, f'--constraint="{"|".join(features)}"']
    lines = [f"#SBATCH {option}" for option in options]
    # Slurm passes over what begins with two signs, so the line is there to be chosen.
    lines += [
        "# Or by memory, where the nodes say what they have (Slurm 23.11, extra_constraints):",
        f'##SBATCH --extra="gpu_mem_mib>={request.need_mib}"',
    ]
    lines += [f"export {name}={value}" for name, value in request.environment.items()]
    return "".join(f"{line}\n" for line in lines)
