"""Kernels in, blobs out: raw lowering (``raw``), memory plan, the entry in C, linking. The only room for LLVM."""
