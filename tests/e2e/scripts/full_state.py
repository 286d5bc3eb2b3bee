"""What full fine-tuning in fp32 keeps: weights, gradients, two moments. python full_state.py LAYERS WIDTH

Nothing is computed, so that the host never touches the memory.
"""

import sys

import torch

layers, width = int(sys.argv[1]), int(sys.argv[2])
weights = [torch.nn.Parameter(torch.empty(width, width, device="cuda")) for _ in range(layers)]
print("weights", flush=True)
for weight in weights:
    weight.grad = torch.empty_like(weight)
print("gradients", flush=True)
moments = [(torch.empty_like(weight), torch.empty_like(weight)) for weight in weights]
print("moments", flush=True)
