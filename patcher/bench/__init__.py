"""Small models of the families that people fine-tune, run on the Mac's GPU and on the CPU side by side.

python -m patcher bench --model llama --device mps,cpu --dtype float32,bfloat16
"""
