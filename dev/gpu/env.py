"""The `env` stage of dev/gpu_check.sh: what PyTorch and its packages offer on this machine, one line each, and what the device can do at
best: a copy, a product in bf16, an all-reduce of NCCL with one rank.

    python3 dev/gpu/env.py [cublaslt|nccl-include]

With an argument it prints one path alone: the file of cuBLASLt, or the folder of nccl.h.
"""

import glob
import os
import site
import sys
import sysconfig
import tempfile
import time


def find(pattern):
    folders = [*site.getsitepackages(), site.getusersitepackages(), sysconfig.get_paths()["purelib"], "/usr/local/cuda/lib64"]
    found = [path for folder in folders for path in sorted(glob.glob(os.path.join(folder, pattern), recursive=True))]
    return found[0] if found else ""


def timed(torch, work, runs=20):
    for _ in range(3):
        work()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(runs):
        work()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / runs


def ceilings(torch):
    x = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    y = torch.empty_like(x)
    print(f"copy           {2 * x.numel() / timed(torch, lambda: y.copy_(x)) / 1e9:.0f} GB/s of {x.numel() >> 20} MiB, read and written")
    n = 8192
    a = torch.randn(n, n, device="cuda", dtype=torch.bfloat16)
    print(f"product        {2 * n ** 3 / timed(torch, lambda: a @ a.T) / 1e12:.0f} TFLOP/s of {n} x {n} in bf16")


def all_reduce(torch):
    import torch.distributed as ranks

    meeting = os.path.join(tempfile.mkdtemp(), "meeting")
    ranks.init_process_group("nccl", init_method=f"file://{meeting}", rank=0, world_size=1)
    x = torch.ones(1 << 20, device="cuda")
    ranks.all_reduce(x)
    torch.cuda.synchronize()
    print(f"NCCL           {'.'.join(map(str, torch.cuda.nccl.version()))}, all-reduce of one rank {'right' if x.eq(1).all().item() else 'WRONG'}")
    ranks.destroy_process_group()


def main():
    paths = {
        "cublaslt": find("nvidia/**/libcublasLt.so.13") or find("libcublasLt.so.13"),
        "nccl-include": os.path.dirname(find("nvidia/**/nccl.h")),
    }
    if len(sys.argv) > 1:
        print(paths[sys.argv[1]])
        return
    print(f"cublasLt       {paths['cublaslt'] or 'not found'}")
    print(f"libnccl        {find('nvidia/**/libnccl.so.2') or 'not found'}")
    import torch

    print(f"PyTorch        {torch.__version__}, CUDA {torch.version.cuda}")
    if not torch.cuda.is_available():
        sys.exit("Cannot measure: PyTorch sees no CUDA device")
    device = torch.cuda.get_device_properties(0)
    print(f"device         {device.name}, sm_{device.major}{device.minor}, {device.multi_processor_count} multiprocessors")
    ceilings(torch)
    all_reduce(torch)


if __name__ == "__main__":
    main()
