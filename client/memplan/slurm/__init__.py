"""The resident helper of the Slurm plugins in `deploy/slurm/`: `memplan slurm`.

A plugin sends it one line about a job that is being submitted, over a Unix socket, and gets lines
that say what to change, to tell the user, or why to refuse it:

    protocol    the lines
    inventory   which GPUs the cluster has, from `sinfo`
    tres        what the job asks for
    plans       what the service says of a job on those GPUs
    decide      plan and inventory become a decision
    helper      the socket
"""
