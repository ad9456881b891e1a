"""The machines: plain PyTorch and DeepSpeed behind one protocol. The only room that imports deepspeed, and lazily."""
