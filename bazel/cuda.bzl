"""cuda_library: .cu files, compiled by nvcc, as a dependency of cc_* rules.

    cuda_library(name = "kernels", srcs = ["gemm.cu"], hdrs = ["gemm.h"], deps = [...])
    cc_plugin(name = "libmoebius_cuda.so", deps = [":kernels"])        # bazel/plugin.bzl
    emulated_cuda_library(name = "kernels_emulated", srcs = ["gemm.cu"], ...)    # by the C++ compiler, for the CPU

CUDA reaches users as a plugin that the program opens when it starts, so that one binary serves machines with and without
a GPU. Without a toolkit a cuda_library, and all that needs it, is skipped by `//...`.
"""

load("@bazel_tools//tools/cpp:toolchain_utils.bzl", "find_cpp_toolchain")
load("@local_config_cuda//:defs.bzl", "CUDA_AVAILABLE", "CUDA_ROOT", "CUDA_VERSION")

# Machine code for Hopper with the features that only it has (wgmma, TMA), and PTX that later chips compile: the PTX of
# sm_90a itself runs on no other chip.
_ARCHITECTURES = [
    "arch=compute_90a,code=sm_90a",
    "arch=compute_90,code=compute_90",
]

_MODE_FLAGS = {
    "dbg": ["-O0", "-g", "-G"],
    "fastbuild": ["-O2"],
    "opt": ["-O3", "-DNDEBUG", "-lineinfo"],
}

def _compile(ctx, toolchain, context, source):
    """The object file of one .cu."""
    output = ctx.actions.declare_file("_cuda/%s/%s.o" % (ctx.label.name, source.basename))
    arguments = ctx.actions.args()
    arguments.add_all([CUDA_ROOT + "/bin/nvcc", output, source.short_path])
    arguments.add_all(["-std=c++20", "-ccbin", toolchain.compiler_executable, "-Xcompiler", "-fPIC"])
    arguments.add_all(["--expt-relaxed-constexpr", "--expt-extended-lambda"])
    arguments.add_all(_MODE_FLAGS[ctx.var["COMPILATION_MODE"]])
    arguments.add_all(_ARCHITECTURES, before_each = "-gencode")
    arguments.add_all(["-I.", "-I" + ctx.bin_dir.path])
    arguments.add_all(context.quote_includes, before_each = "-I")
    arguments.add_all(context.includes, before_each = "-I")
    arguments.add_all(context.system_includes, before_each = "-isystem")
    arguments.add_all(context.defines, before_each = "-D")
    arguments.add_all(ctx.attr.copts)
    arguments.add_all(["-c", source])
    ctx.actions.run(
        executable = ctx.executable._nvcc,
        arguments = [arguments],
        inputs = depset([source] + ctx.files.hdrs, transitive = [context.headers, toolchain.all_files]),
        outputs = [output],
        # The version makes a new toolkit in the same folder a new action.
        env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "MOEBIUS_CUDA_VERSION": CUDA_VERSION},
        mnemonic = "CudaCompile",
        progress_message = "Compiling %s" % source.short_path,
    )
    return output

def _archive(ctx, toolchain, objects):
    """A static library of `objects`, without time stamps."""
    archive = ctx.actions.declare_file("lib%s.a" % ctx.label.name)
    arguments = ctx.actions.args()
    arguments.add_all(["rcsD", archive])
    arguments.add_all(objects)
    ctx.actions.run(
        executable = toolchain.ar_executable,
        arguments = [arguments],
        inputs = depset(objects, transitive = [toolchain.all_files]),
        outputs = [archive],
        mnemonic = "CudaArchive",
    )
    return archive

def _cuda_library_impl(ctx):
    toolchain = find_cpp_toolchain(ctx)
    features = cc_common.configure_features(
        ctx = ctx,
        cc_toolchain = toolchain,
        requested_features = ctx.features,
        unsupported_features = ctx.disabled_features,
    )
    deps = [dep[CcInfo] for dep in ctx.attr.deps]
    context = cc_common.merge_cc_infos(cc_infos = deps).compilation_context
    archive = _archive(ctx, toolchain, [_compile(ctx, toolchain, context, source) for source in ctx.files.srcs])
    library = cc_common.create_library_to_link(
        actions = ctx.actions,
        feature_configuration = features,
        cc_toolchain = toolchain,
        pic_static_library = archive,
        alwayslink = ctx.attr.alwayslink,
    )
    linker_input = cc_common.create_linker_input(owner = ctx.label, libraries = depset([library]))
    own = CcInfo(
        compilation_context = cc_common.create_compilation_context(headers = depset(ctx.files.hdrs)),
        linking_context = cc_common.create_linking_context(linker_inputs = depset([linker_input])),
    )
    return [
        DefaultInfo(files = depset([archive])),
        cc_common.merge_cc_infos(direct_cc_infos = [own], cc_infos = deps),
    ]

_cuda_library = rule(
    implementation = _cuda_library_impl,
    attrs = {
        "srcs": attr.label_list(allow_files = [".cu"]),
        "hdrs": attr.label_list(allow_files = [".h", ".cuh"]),
        "deps": attr.label_list(providers = [CcInfo]),
        "copts": attr.string_list(),
        "alwayslink": attr.bool(),
        "_nvcc": attr.label(default = "//bazel:nvcc", executable = True, cfg = "exec"),
        "_cc_toolchain": attr.label(default = "@bazel_tools//tools/cpp:current_cc_toolchain"),
    },
    fragments = ["cpp"],
    toolchains = ["@bazel_tools//tools/cpp:toolchain_type"],
)

def cuda_library(name, srcs, hdrs = [], deps = [], **kwargs):
    """Compiles `srcs` with nvcc; `deps` may be cc_library and cuda_library targets."""
    if CUDA_AVAILABLE:
        toolkit = ["@local_config_cuda//:headers", "@local_config_cuda//:cudart_static"]
        _cuda_library(name = name, srcs = srcs, hdrs = hdrs, deps = deps + toolkit, **kwargs)
    else:
        native.cc_library(
            name = name,
            hdrs = hdrs,
            target_compatible_with = ["//bazel:never"],
            visibility = kwargs.get("visibility"),
        )

def emulated_cuda_library(name, srcs, emulation, hdrs = [], deps = [], **kwargs):
    """Compiles `srcs` as C++, with the words of CUDA from the library `emulation`; with and without a toolkit."""
    sources = []
    for source in srcs:
        native.genrule(
            name = "%s_%s" % (name, source),
            srcs = [source],
            outs = ["%s_sources/%s.cc" % (name, source)],
            cmd = "cp $< $@",
            visibility = ["//visibility:private"],
        )
        sources.append("%s_sources/%s.cc" % (name, source))
    native.cc_library(
        name = name,
        srcs = sources,
        hdrs = hdrs,
        deps = deps + [emulation],
        **kwargs
    )
