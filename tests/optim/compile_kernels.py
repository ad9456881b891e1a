"""Compile launches of the kernels for GPUs that this machine need not have, and say what became of them.

`python -m tests.optim.compile_kernels` reads a list of {kernel, signature, constants, num_warps, capability} from stdin
and writes for each {ptx, resources} to stdout, in JSON. A process of its own, since Triton decides when it is imported
whether it compiles or interprets.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from bert_lamb.optim import fused_kernels, fused_norm_kernels

CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"


def compiled(kernel, signature, constants, num_warps, capability):
    for name, value in constants.items():
        if isinstance(value, dict):
            constants[name] = tl.dtype(value["dtype"])
    source = ASTSource(
        fn=getattr(fused_kernels, kernel, None) or getattr(fused_norm_kernels, kernel),
        signature={**signature, **dict.fromkeys(constants, "constexpr")},
        constexprs=constants,
    )
    binary = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": num_warps})
    with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
        cubin.write(binary.asm["cubin"])
        cubin.flush()
        said = subprocess.run([CUOBJDUMP, "-res-usage", cubin.name], capture_output=True, text=True, check=True).stdout
    resources = {name: int(number) for name, number in re.findall(r"(REG|STACK|LOCAL|SHARED):(\d+)", said)}
    return {"ptx": binary.asm["ptx"], "resources": resources}


if __name__ == "__main__":
    json.dump([compiled(**launch) for launch in json.load(sys.stdin)], sys.stdout)
