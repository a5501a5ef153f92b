"""@system_libs: Debian's installed libraries as cc_library targets, found with pkg-config.

Each entry: name -> struct(pc = pkg-config modules, header = file to probe when there is no
.pc file, libs = link flags then)."""

_LIBS = {
    "absl": struct(
        pc = ["absl_base", "absl_cleanup", "absl_cord", "absl_flags", "absl_flags_parse", "absl_flags_usage", "absl_flat_hash_map", "absl_flat_hash_set", "absl_hash", "absl_random_random", "absl_span", "absl_status", "absl_statusor", "absl_str_format", "absl_strings", "absl_synchronization", "absl_time", "absl_failure_signal_handler", "absl_symbolize"],
        header = "absl/base/config.h", libs = [], deps = [], defines = [],
    ),
    "protobuf": struct(pc = ["protobuf"], header = "google/protobuf/message.h", libs = [], deps = [], defines = []),
    "grpc": struct(pc = ["grpc++"], header = "grpcpp/grpcpp.h", libs = [], deps = ["protobuf"], defines = []),
    "grpc_reflection": struct(pc = [], header = "grpcpp/ext/proto_server_reflection_plugin.h", libs = ["-lgrpc++_reflection"], deps = ["grpc"], defines = []),
    "gtest": struct(pc = ["gmock", "gtest"], header = "gtest/gtest.h", libs = [], deps = [], defines = []),
    "gtest_main": struct(pc = ["gtest_main"], header = "gtest/gtest.h", libs = [], deps = ["gtest"], defines = []),
    "benchmark": struct(pc = ["benchmark"], header = "benchmark/benchmark.h", libs = [], deps = [], defines = []),
    "mpi": struct(pc = ["ompi-c"], header = "mpi.h", libs = [], deps = [], defines = ["OMPI_SKIP_MPICXX=1"]),
    "dnnl": struct(pc = [], header = "dnnl.hpp", libs = ["-ldnnl", "-lgomp"], deps = [], defines = []),
    "zlib": struct(pc = ["zlib"], header = "zlib.h", libs = [], deps = [], defines = []),
    "zstd": struct(pc = ["libzstd"], header = "zstd.h", libs = [], deps = [], defines = []),
    "xxhash": struct(pc = ["libxxhash"], header = "xxhash.h", libs = [], deps = [], defines = []),
    "isal": struct(pc = ["libisal"], header = "isa-l/crc.h", libs = [], deps = [], defines = []),
    "hwloc": struct(pc = ["hwloc"], header = "hwloc.h", libs = [], deps = [], defines = []),
    "json": struct(pc = [], header = "nlohmann/json.hpp", libs = [], deps = [], defines = []),
    "simdjson": struct(pc = ["simdjson"], header = "simdjson.h", libs = [], deps = [], defines = []),
    "cli11": struct(pc = [], header = "CLI/CLI.hpp", libs = [], deps = [], defines = []),
    "sentencepiece": struct(pc = [], header = "sentencepiece_trainer.h", libs = ["-lsentencepiece_train", "-lsentencepiece"], deps = [], defines = []),
}

def _words(s):
    return [w for w in s.strip().replace("\n", " ").split(" ") if w]

def _dedup(flags):
    # keep the LAST occurrence of each -l (right for static archives), the first of all else
    out = []
    seen = {}
    for f in reversed(flags):
        if f.startswith("-l"):
            if f in seen:
                continue
            seen[f] = True
        out.append(f)
    return [x for x in reversed(out)]

def _impl(ctx):
    pc_bin = ctx.which("pkg-config")
    build = ["package(default_visibility = [\"//visibility:public\"])"]
    have = {}
    for name, lib in _LIBS.items():
        ok = True
        cflags, libs, slibs = [], [], []
        if lib.pc:
            if not pc_bin:
                ok = False
            else:
                r = ctx.execute([pc_bin, "--cflags"] + lib.pc)
                ok = r.return_code == 0
                cflags = _words(r.stdout)
                libs = _words(ctx.execute([pc_bin, "--libs"] + lib.pc).stdout)
                slibs = _words(ctx.execute([pc_bin, "--libs", "--static"] + lib.pc).stdout)
        else:
            # no .pc file: ask the compiler whether the header is there
            r = ctx.execute(["sh", "-c", "echo '#include <%s>' | c++ -std=c++20 -E -x c++ - >/dev/null 2>&1" % lib.header])
            ok = r.return_code == 0
            libs = lib.libs
            slibs = lib.libs
        have[name] = ok
        hdr_dirs = [f[2:] for f in cflags if f.startswith("-I") and not f in ("-I/usr/include",)]
        defines = [f[2:] for f in cflags if f.startswith("-D")] + lib.defines
        incs = []
        globs = []
        for i, d in enumerate(hdr_dirs):
            ctx.symlink(d, "%s_include_%d" % (name, i))
            incs.append("%s_include_%d" % (name, i))
            globs.append("%s_include_%d/**/*.h" % (name, i))
        build.append("""
cc_library(
    name = "{n}",
    hdrs = glob({g}, allow_empty = True),
    includes = {i},
    defines = {d},
    linkopts = select({{
        "@//bazel:static_deps": {s},
        "//conditions:default": {l},
    }}),
    deps = {deps},
    {compat}
)""".format(
            n = name, g = repr(globs), i = repr(incs), d = repr(defines), l = repr(_dedup(libs)),
            s = repr(["-Wl,--push-state,-Bstatic"] + _dedup(slibs) + ["-Wl,--pop-state"]),
            deps = repr([":" + d for d in lib.deps]),
            compat = "" if ok else "target_compatible_with = [\"@//bazel:never\"],",
        ))
    for tool in ["protoc", "grpc_cpp_plugin", "mpirun"]:
        p = ctx.which(tool)
        if p:
            if tool == "mpirun":
                ctx.file(tool + ".path", str(p))
            else:
                ctx.symlink(p, tool)
    build.append("exports_files(glob([\"protoc\", \"grpc_cpp_plugin\"]))")
    ctx.file("BUILD", "\n".join(build) + "\n")
    ctx.file("have.bzl", "HAVE = " + repr(have) + "\nMPIRUN = " + repr(str(ctx.which("mpirun") or "")) + "\n")

system_libs = repository_rule(implementation = _impl, local = True, configure = True, environ = ["PKG_CONFIG_PATH"])
