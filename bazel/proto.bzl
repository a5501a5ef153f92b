"""cc_grpc_library: .proto files as a C++ library, made by the distribution's protoc.

    cc_grpc_library(name = "run_config", srcs = ["run_config.proto"], grpc = False)
    cc_grpc_library(name = "jobs", srcs = ["jobs.proto"], deps = ["//configs:run_config"])

Protos import each other by their path from the root. `deps` names other cc_grpc_library targets.
"""

_ProtoInfo = provider(
    doc = "The .proto files of a library.",
    fields = {"sources": "depset of the library's own files and of all that they import"},
)

def _generate_impl(ctx):
    suffixes = [".pb"] + ([".grpc.pb"] if ctx.attr.grpc else [])
    names = [proto.basename[:-len(".proto")] + suffix for proto in ctx.files.srcs for suffix in suffixes]
    headers = [ctx.actions.declare_file(name + ".h") for name in names]
    sources = [ctx.actions.declare_file(name + ".cc") for name in names]
    protos = depset(ctx.files.srcs, transitive = [dep[_ProtoInfo].sources for dep in ctx.attr.deps])

    arguments = ctx.actions.args()
    arguments.add("-I.")
    arguments.add("--cpp_out=" + ctx.bin_dir.path)
    if ctx.attr.grpc:
        arguments.add(ctx.file._grpc_plugin, format = "--plugin=protoc-gen-grpc=%s")
        arguments.add("--grpc_out=" + ctx.bin_dir.path)
    arguments.add_all(ctx.files.srcs)
    ctx.actions.run(
        executable = ctx.file._protoc,
        arguments = [arguments],
        inputs = protos,
        tools = [ctx.file._grpc_plugin] if ctx.attr.grpc else [],
        outputs = headers + sources,
        mnemonic = "Protoc",
        progress_message = "Generating C++ from %{label}",
    )
    return [
        DefaultInfo(files = depset(sources)),
        OutputGroupInfo(headers = depset(headers)),
        _ProtoInfo(sources = protos),
    ]

_generate = rule(
    implementation = _generate_impl,
    attrs = {
        "srcs": attr.label_list(allow_files = [".proto"]),
        "deps": attr.label_list(providers = [_ProtoInfo]),
        "grpc": attr.bool(),
        "_protoc": attr.label(default = "@system_libs//:protoc", allow_single_file = True),
        "_grpc_plugin": attr.label(default = "@system_libs//:grpc_cpp_plugin", allow_single_file = True),
    },
)

def _generated(label):
    """The target that generates `label`'s sources."""
    if ":" not in label:
        label = label + ":" + label.split("/")[-1]
    return label + "_generate"

def cc_grpc_library(name, srcs, deps = [], grpc = True, **kwargs):
    """A cc_library of the messages in `srcs`, and of their services' stubs when `grpc` is set."""
    _generate(
        name = name + "_generate",
        srcs = srcs,
        deps = [_generated(dep) for dep in deps],
        grpc = grpc,
        visibility = kwargs.get("visibility"),
    )
    native.filegroup(
        name = name + "_headers",
        srcs = [":" + name + "_generate"],
        output_group = "headers",
    )
    native.cc_library(
        name = name,
        srcs = [":" + name + "_generate"],
        hdrs = [":" + name + "_headers"],
        copts = ["-w"],  # generated code is not ours to warn about
        deps = deps + ["@system_libs//:grpc" if grpc else "@system_libs//:protobuf"],
        **kwargs
    )
