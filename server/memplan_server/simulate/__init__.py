"""The simulated GPU: real autograd, real optimizers, no data, no hardware.

Runs in worker processes only: registering the device changes the process.
"""

DEVICE_TYPE = "simgpu"
"""What `tensor.device.type` is on the simulated GPU."""
