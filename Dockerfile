# One image for pretraining and fine-tuning on NVIDIA GPUs; the same constraints as everywhere else.
#   docker build -t bert-lamb .
#   docker run --gpus all --ipc host -v /data:/data bert-lamb \
#       torchrun --standalone --nproc-per-node 8 --no-python bert-lamb pretrain recipe=lamb_32k shards=/data/shards run_dir=/data/run
# With Apptainer: apptainer build bert-lamb.sif docker-daemon://bert-lamb:latest (scripts/README.md).
# This file has not been built where the project is developed: there is neither a Docker engine nor a GPU. The steps
# inside it (pip install with the constraints, the console script from a wheel outside the checkout) are tested there.
FROM python:3.11-slim-bookworm

# g++: Triton and torch.compile build small host stubs at run time.
# openssh-client and pdsh: the deepspeed launcher's way to other hosts.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ openssh-client pdsh \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/bert_lamb
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY bert_lamb bert_lamb
COPY data_prep data_prep
COPY conf conf
# On a machine without PyTorch's CPU wheel this takes the CUDA build of the pinned torch; NCCL comes with it.
RUN pip install --no-cache-dir --constraint constraints.txt . && bert-lamb --version

# NVIDIA apex is optional and is not on PyPI (the package `apex` there is something else); build it from its source
# repository if you want its FusedLAMB beside ours.
WORKDIR /workspace
COPY scripts scripts
CMD ["bert-lamb", "--help"]
