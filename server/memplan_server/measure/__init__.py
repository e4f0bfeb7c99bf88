"""Jobs really run, on a CUDA GPU or on the CPU, and compared with what is simulated.

`measurement` is plain data and imports no torch; the rest runs in processes of its own.
"""
