"""cc_grpc_library: .proto -> cc_library, with the system's protoc and grpc_cpp_plugin."""

_Protos = provider(fields = ["srcs"])

def _gen_impl(ctx):
    hdrs, srcs, outs = [], [], []
    exts = [(".pb.h", ".pb.cc")] + ([(".grpc.pb.h", ".grpc.pb.cc")] if ctx.attr.grpc else [])
    for f in ctx.files.srcs:
        base = f.basename[:-len(".proto")]
        for h, c in exts:
            hdrs.append(ctx.actions.declare_file(base + h, sibling = None))
            srcs.append(ctx.actions.declare_file(base + c, sibling = None))
    trans = depset(ctx.files.srcs, transitive = [d[_Protos].srcs for d in ctx.attr.deps])
    args = ctx.actions.args()
    args.add("-I.")
    args.add("--cpp_out=" + ctx.bin_dir.path)
    tools = []
    if ctx.attr.grpc:
        args.add("--plugin=protoc-gen-grpc=" + ctx.file._plugin.path)
        args.add("--grpc_out=" + ctx.bin_dir.path)
        tools.append(ctx.file._plugin)
    args.add_all(ctx.files.srcs)
    ctx.actions.run(
        executable = ctx.file._protoc,
        arguments = [args],
        inputs = trans,
        tools = tools,
        outputs = hdrs + srcs,
        mnemonic = "Protoc",
        progress_message = "Generating C++ from %{label}",
    )
    return [
        DefaultInfo(files = depset(srcs)),
        OutputGroupInfo(hdrs = depset(hdrs)),
        _Protos(srcs = trans),
    ]

_gen = rule(
    implementation = _gen_impl,
    attrs = {
        "srcs": attr.label_list(allow_files = [".proto"]),
        "deps": attr.label_list(providers = [_Protos]),
        "grpc": attr.bool(),
        "_protoc": attr.label(default = "@system_libs//:protoc", allow_single_file = True),
        "_plugin": attr.label(default = "@system_libs//:grpc_cpp_plugin", allow_single_file = True),
    },
)

def _gen_label(l):
    if ":" in l:
        return l + "_gen"
    return l + ":" + l.split("/")[-1] + "_gen"

def cc_grpc_library(name, srcs, deps = [], grpc = True, **kwargs):
    _gen(name = name + "_gen", srcs = srcs, deps = [_gen_label(d) for d in deps], grpc = grpc, visibility = kwargs.get("visibility"))
    native.filegroup(name = name + "_hdrs", srcs = [":" + name + "_gen"], output_group = "hdrs")
    native.cc_library(
        name = name,
        srcs = [":" + name + "_gen"],
        hdrs = [":" + name + "_hdrs"],
        copts = ["-w"],  # generated code
        deps = deps + ["@system_libs//:protobuf"] + (["@system_libs//:grpc"] if grpc else []),
        **kwargs
    )
