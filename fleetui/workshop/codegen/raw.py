"""Lowers scheduled TIR to plain C functions: no packed calls, no runtime, nothing that can raise.

A kernel with parameters A, B, C becomes ``void name(float *A, float *B, float *C, int32_t lo, int32_t hi)``; its
parallel loop, the one annotated ``PARALLEL``, runs over ``lo..hi``. A kernel with ``detail["range"]`` has no such
loop: ``lo`` and ``hi`` are its own last two parameters. Loads and stores assume the alignment of an element only.
Pointers do not alias (LLVM is told so): a kernel's output is never one of its inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fleetui.common.domain.errors import BugError
from fleetui.workshop.kernel import PARALLEL, Kernel
from fleetui.workshop.target import Target


def _schedulable_passes() -> list[Any]:
    """From blocks to plain loops."""
    from tvm import s_tir, tirx

    t = s_tir.transform
    return [
        t.CanonicalizeLoop(),
        tirx.transform.LowerInitBlock() if hasattr(tirx.transform, "LowerInitBlock") else t.LowerInitBlock(),
        t.PlanAndUpdateBufferAllocationLocation(),
        t.ConvertBlocksToOpaque(),
        t.CompactBufferAllocation(),
        t.LowerMatchBuffer(),
        t.StmtSimplify(),
        t.LowerOpaqueBlock(),
    ]


def _loop_passes() -> list[Any]:
    """From plain loops to what LLVM's code generator takes."""
    from tvm import s_tir, tirx

    return [
        tirx.transform.FlattenBuffer(),
        tirx.transform.BF16ComputeLegalize(),
        tirx.transform.NarrowDataType(32),
        s_tir.transform.LoopPartition(),
        tirx.transform.VectorizeLoop(True),
        tirx.transform.StorageRewrite(),
        s_tir.transform.HoistIfThenElse(),
        tirx.transform.UnrollLoop(),
        s_tir.transform.RenormalizeSplitPattern(),
        tirx.transform.StmtSimplify(),
        tirx.transform.RemoveNoOp(),
        s_tir.transform.RewriteUnsafeSelect(),
        # Not CommonSubexprElim: it may bind what is shared in one loop and use it in the next. LLVM does it anyway.
        tirx.transform.BF16StorageLegalize(),
        _on_the_stack(),
        tirx.transform.LowerTVMBuiltin(),
        tirx.transform.LowerIntrin(),
    ]


def _on_the_stack() -> Any:
    """Local arrays stay on the stack, however big: left alone, those beyond 1 KiB would be asked of a runtime."""
    from tvm import tirx
    from tvm_ffi import structural_map

    def keep(alloc: Any) -> Any:
        marks = {**dict(alloc.annotations), "disable_lower_builtin": tirx.const(True, "bool")}
        return tirx.AllocBuffer(alloc.buffer, marks)

    def change(func: Any, _module: Any, _context: Any) -> Any:
        return func.with_body(structural_map(func.body, [(tirx.AllocBuffer, keep)]))

    return tirx.transform.prim_func_pass(change, opt_level=0, name="fleetui.OnTheStack")


def _lets_to_locals() -> Any:
    """Names bound inside of an expression become local variables stored beforehand.

    The simplifier would put the value of each in all places that mention it, which is exponential in the depth of
    a chain of activations; what is loaded from memory it leaves alone. LLVM keeps these locals in registers. In a
    vector loop a name has one place for each lane.
    """
    from tvm import tirx
    from tvm_ffi import structural_map

    def vectors(loop: Any) -> Any:
        if loop.kind != tirx.ForKind.VECTORIZED or not isinstance(loop.extent, tirx.IntImm):
            return loop
        lane = loop.loop_var
        at = lane if isinstance(loop.min, tirx.IntImm) and loop.min.value == 0 else lane - loop.min
        allocations: list[Any] = []
        body = structural_map(
            loop.body, [(tirx.BufferStore, lambda s: _stored_before(s, at, loop.extent.value, allocations))]
        )
        if not allocations:
            return loop
        made = tirx.For(lane, loop.min, loop.extent, loop.kind, body, annotations=loop.annotations)
        return tirx.SeqStmt([*allocations, made])

    def alone(statement: Any) -> Any:
        allocations: list[Any] = []
        made = _stored_before(statement, tirx.const(0, "int32"), 1, allocations)
        return tirx.SeqStmt([*allocations, made]) if allocations else made

    def change(func: Any, _module: Any, _context: Any) -> Any:
        body = structural_map(func.body, [(tirx.For, vectors)])
        return func.with_body(structural_map(body, [(tirx.BufferStore, alone)]))

    return tirx.transform.prim_func_pass(change, opt_level=0, name="fleetui.LetsToLocals")


def _stored_before(statement: Any, at: Any, size: int, allocations: list[Any]) -> Any:
    """A store, and before it a store to a new local array at ``at`` for each name in its value."""
    from tvm import ir, tirx
    from tvm_ffi import structural_map

    named: dict[Any, Any] = {}

    def take(let: Any) -> Any:
        named[let.var] = let.value
        return let.body

    value = structural_map(statement.value, [(tirx.Let, take)])
    if not named:
        return statement
    places: dict[Any, Any] = {}
    made: list[Any] = []

    def name(var: Any) -> Any:
        if var not in named:
            return var
        if var not in places:
            inner = structural_map(named[var], [(ir.Var, name)])
            dtype = str(var.ty.dtype)
            truth = dtype == "bool"  # as a number: a local array of truths would not be lowered like the others
            buffer = tirx.decl_buffer((size,), "int8" if truth else dtype, name=var.name, scope="local")
            load = tirx.BufferLoad(buffer, [at])
            places[var] = tirx.NE(load, tirx.const(0, "int8")) if truth else load
            inner = tirx.Cast("int8", inner) if truth else inner
            allocations.append(tirx.AllocBuffer(buffer))
            made.append(tirx.BufferStore(buffer, inner, [at]))
        return places[var]

    value = structural_map(value, [(ir.Var, name)])
    return tirx.SeqStmt([*made, tirx.BufferStore(statement.buffer, value, list(statement.indices))])


def lower(kernels: Sequence[Kernel], names: Sequence[str], target: Target) -> Any:
    """One IRModule with a plain function for each kernel, ready for LLVM."""
    import tvm
    from tvm import tirx

    goal = target.tvm()
    module = tvm.IRModule({n: k.func.with_attr("global_symbol", n) for n, k in zip(names, kernels, strict=True)})
    module = tirx.transform.BindTarget(goal)(module)
    module = _lets_to_locals()(module)
    module = tvm.transform.Sequential(_schedulable_passes())(module)
    module = tvm.IRModule({n: _plain(module[n], k) for n, k in zip(names, kernels, strict=True)})
    config = {"s_tir.LoopPartition": {"partition_const_loop": True, "no_unroll_loop_with_extent_one": True}}
    with tvm.transform.PassContext(config=config):
        return tvm.transform.Sequential(_loop_passes())(module)


def _plain(func: Any, kernel: Kernel) -> Any:
    """Pointers for buffers, the wished strides, and ``lo``/``hi`` in the place of the parallel loop's range."""
    import tvm
    from tvm import tirx
    from tvm.ir import PointerType, PrimType
    from tvm_ffi import structural_map

    own = bool(kernel.detail.get("range"))
    lo, hi = func.params[-2:] if own else (tirx.Var("lo", "int32"), tirx.Var("hi", "int32"))
    pointers, declared, renewed = [], [], []
    for index, old in enumerate(func.params[:-2] if own else func.params):
        dtype = str(old.ty.dtype)
        pointer = tirx.Var(f"{old.name}_p", PointerType(PrimType(dtype)))
        strides = kernel.strides.get(index)
        new = tirx.decl_buffer(
            list(old.ty.shape), dtype, name=old.name, strides=list(strides) if strides is not None else None
        )
        pointers.append(pointer)
        declared.append(tirx.DeclBuffer(new, data=pointer))
        renewed.append((old, new))
    found = []

    def buffer(var: Any) -> Any:
        for old, new in renewed:
            if var.same_as(old):
                return new
        return var

    def loop(loop: Any) -> Any:
        if PARALLEL not in loop.annotations:
            return loop
        found.append(loop)
        kind = type(loop.loop_var.ty)  # index dtype is kept: int32 or int64
        del kind
        cast = (lambda v: v) if str(loop.loop_var.ty.dtype) == "int32" else (lambda v: tirx.Cast("int64", v))
        return tirx.For(loop.loop_var, cast(lo), cast(hi - lo), tirx.ForKind.SERIAL, loop.body)

    body = structural_map(func.body, [(tvm.ir.Var, buffer), (tirx.For, loop)])
    if len(found) > (0 if own else 1) or (found == [] and kernel.extent != 1 and not own):
        raise BugError(f"{kernel.key}: {len(found)} parallel loops, extent {kernel.extent}")
    return tirx.PrimFunc([*pointers, lo, hi], tirx.SeqStmt([*declared, body]), func.ret_type, func.attrs)


def object_file(module: Any, target: Target, path: str) -> None:
    """Write the object (``.o``) of a lowered module."""
    import tvm

    built = tvm.get_global_func("target.build.llvm")(module, target.tvm())
    built.write_to_file(path, "o")
