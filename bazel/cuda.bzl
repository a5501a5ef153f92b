"""cuda_library: .cu files compiled by nvcc into a static library usable as a cc_library."""
load("@bazel_tools//tools/cpp:toolchain_utils.bzl", "find_cpp_toolchain")
load("@local_config_cuda//:defs.bzl", "CUDA_AVAILABLE", "CUDA_ROOT", "CUDA_VERSION")

# real code for Hopper (with the 'a' features: wgmma, setmaxnreg, TMA), and PTX that later
# chips can compile: sm_90a's own PTX runs on no other chip.
DEFAULT_GENCODE = [
    "arch=compute_90a,code=sm_90a",
    "arch=compute_90,code=compute_90",
]

def _impl(ctx):
    tc = find_cpp_toolchain(ctx)
    fc = cc_common.configure_features(ctx = ctx, cc_toolchain = tc, requested_features = ctx.features, unsupported_features = ctx.disabled_features)
    dep_ccs = [d[CcInfo] for d in ctx.attr.deps]
    cc = cc_common.merge_cc_infos(cc_infos = dep_ccs).compilation_context if dep_ccs else None
    opt = ctx.var["COMPILATION_MODE"]
    objs = []
    for src in ctx.files.srcs:
        o = ctx.actions.declare_file("_cuda/%s/%s.o" % (ctx.label.name, src.basename))
        a = ctx.actions.args()
        a.add_all([CUDA_ROOT + "/bin/nvcc", o, src.short_path])
        a.add_all(["-std=c++20", "-ccbin", tc.compiler_executable, "-Xcompiler", "-fPIC", "--expt-relaxed-constexpr", "--expt-extended-lambda"])
        a.add_all(["-O3", "-DNDEBUG", "-lineinfo"] if opt == "opt" else (["-O0", "-g", "-G"] if opt == "dbg" else ["-O2"]))
        for g in ctx.attr.gencode:
            a.add_all(["-gencode", g])
        a.add_all(["-I.", "-I" + ctx.bin_dir.path])
        if cc:
            a.add_all(cc.quote_includes, before_each = "-I")
            a.add_all(cc.includes, before_each = "-I")
            a.add_all(cc.system_includes, before_each = "-isystem")
            a.add_all(cc.defines, before_each = "-D")
        a.add_all(ctx.attr.copts)
        a.add_all(["-c", src])
        ctx.actions.run(
            executable = ctx.executable._nvcc,
            arguments = [a],
            inputs = depset([src] + ctx.files.hdrs, transitive = ([cc.headers] if cc else []) + [tc.all_files]),
            outputs = [o],
            env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "MOEBIUS_CUDA_VERSION": CUDA_VERSION},
            mnemonic = "CudaCompile",
            progress_message = "Compiling %s" % src.short_path,
        )
        objs.append(o)
    lib = ctx.actions.declare_file("lib%s.a" % ctx.label.name)
    a = ctx.actions.args()
    a.add("rcsD")
    a.add(lib)
    a.add_all(objs)
    ctx.actions.run(executable = tc.ar_executable, arguments = [a], inputs = depset(objs, transitive = [tc.all_files]), outputs = [lib], mnemonic = "CudaArchive")
    to_link = cc_common.create_library_to_link(
        actions = ctx.actions, feature_configuration = fc, cc_toolchain = tc,
        pic_static_library = lib, alwayslink = ctx.attr.alwayslink,
    )
    li = cc_common.create_linker_input(owner = ctx.label, libraries = depset([to_link]))
    info = CcInfo(
        compilation_context = cc_common.create_compilation_context(headers = depset(ctx.files.hdrs)),
        linking_context = cc_common.create_linking_context(linker_inputs = depset([li])),
    )
    return [
        DefaultInfo(files = depset([lib])),
        cc_common.merge_cc_infos(direct_cc_infos = [info], cc_infos = dep_ccs),
    ]

_cuda_library = rule(
    implementation = _impl,
    attrs = {
        "srcs": attr.label_list(allow_files = [".cu"]),
        "hdrs": attr.label_list(allow_files = [".h", ".cuh", ".hpp", ".inc"]),
        "deps": attr.label_list(providers = [CcInfo]),
        "copts": attr.string_list(),
        "gencode": attr.string_list(default = DEFAULT_GENCODE),
        "alwayslink": attr.bool(),
        "_nvcc": attr.label(default = "//bazel:nvcc", executable = True, cfg = "exec"),
        "_cc_toolchain": attr.label(default = "@bazel_tools//tools/cpp:current_cc_toolchain"),
    },
    fragments = ["cpp"],
    toolchains = ["@bazel_tools//tools/cpp:toolchain_type"],
)

def cuda_library(name, srcs = [], hdrs = [], deps = [], **kwargs):
    if CUDA_AVAILABLE:
        _cuda_library(name = name, srcs = srcs, hdrs = hdrs, deps = deps + ["@local_config_cuda//:headers", "@local_config_cuda//:cudart_static"], **kwargs)
    else:
        native.cc_library(name = name, hdrs = hdrs, target_compatible_with = ["//bazel:never"])
