"""@system_libs: the libraries of the distribution as cc_library targets.

A library is found by pkg-config, or, when it ships no .pc file, by asking the compiler for its header. One that is not
installed becomes a target that nothing is compatible with: `//...` then skips what needs it, and a target named on the
command line says so. To add a library, add one entry to _LIBRARIES and its package to bazel/tools/install_deps.sh.
"""

def _library(modules = [], header = "", link = [], deps = [], defines = []):
    """One entry of the table.

    Args:
      modules: pkg-config modules, when the library has them.
      header: without modules, the header whose presence proves that the library is installed.
      link: without modules, the linker's flags.
      deps: other entries that this one needs.
      defines: preprocessor definitions that every user of the library needs.
    """
    return struct(modules = modules, header = header, link = link, deps = deps, defines = defines)

_ABSL_MODULES = [
    "absl_base",
    "absl_cleanup",
    "absl_cord",
    "absl_failure_signal_handler",
    "absl_flags",
    "absl_flags_parse",
    "absl_flags_usage",
    "absl_flat_hash_map",
    "absl_flat_hash_set",
    "absl_hash",
    "absl_random_random",
    "absl_span",
    "absl_status",
    "absl_statusor",
    "absl_str_format",
    "absl_strings",
    "absl_symbolize",
    "absl_synchronization",
    "absl_time",
]

_LIBRARIES = {
    "absl": _library(modules = _ABSL_MODULES),
    "benchmark": _library(modules = ["benchmark"]),
    "cli11": _library(header = "CLI/CLI.hpp"),
    "grpc": _library(modules = ["grpc++"], deps = ["protobuf"]),
    "gtest": _library(modules = ["gmock", "gtest"]),
    "gtest_main": _library(modules = ["gtest_main"], deps = ["gtest"]),
    "isal": _library(modules = ["libisal"]),
    "json": _library(header = "nlohmann/json.hpp"),
    # Without the definition mpi.h asks for the C++ bindings that MPI 3 removed.
    "mpi": _library(modules = ["ompi-c"], defines = ["OMPI_SKIP_MPICXX=1"]),
    # Only for benchmarks, beside whose products ours are measured.
    "onednn": _library(header = "dnnl.hpp", link = ["-ldnnl"]),
    "protobuf": _library(modules = ["protobuf"]),
    # Only for the tokenizer's plugin: its own copy of protobuf clashes with ours in one link.
    "sentencepiece": _library(
        header = "sentencepiece_trainer.h",
        link = ["-lsentencepiece_train", "-lsentencepiece"],
    ),
    "xxhash": _library(modules = ["libxxhash"]),
    "zlib": _library(modules = ["zlib"]),
    "zstd": _library(modules = ["libzstd"]),
}

# Programs that rules use as inputs of their actions: an upgraded one rebuilds what it made.
_PROGRAMS = ["protoc", "grpc_cpp_plugin"]

# Files of packages that are built into the program.
_FILES = {"chart.min.js": "/usr/share/javascript/chart.js/chart.min.js"}

_TARGET = """
cc_library(
    name = "{name}",
    hdrs = glob({headers}, allow_empty = True),
    defines = {defines},
    includes = {includes},
    linkopts = {linkopts},
    target_compatible_with = {compatible_with},
    deps = {deps},
)
"""

def _words(text):
    return [word for word in text.replace("\n", " ").split(" ") if word]

def _last_occurrences(flags):
    """Drops repeated flags, keeping the last of each: a library must follow all that need it."""
    kept = []
    for i, flag in enumerate(flags):
        if flag not in flags[i + 1:]:
            kept.append(flag)
    return kept

def _pkg_config(ctx, question, modules):
    """The flags that pkg-config answers with, or None when a module is missing."""
    program = ctx.which("pkg-config")
    if not program:
        return None
    result = ctx.execute([program, question] + modules)
    return _words(result.stdout) if result.return_code == 0 else None

def _has_header(ctx, header):
    probe = "echo '#include <%s>' | c++ -std=c++20 -E -x c++ - >/dev/null 2>&1" % header
    return ctx.execute(["sh", "-c", probe]).return_code == 0

def _find(ctx, library):
    """(compiler flags, linker flags) of an entry, or None when it is not installed."""
    if library.modules:
        compile = _pkg_config(ctx, "--cflags", library.modules)
        link = _pkg_config(ctx, "--libs", library.modules)
        return None if compile == None or link == None else (compile, link)
    return ([], library.link) if _has_header(ctx, library.header) else None

def _target(ctx, name, library):
    """The BUILD text of one library."""
    found = _find(ctx, library)
    compile, link = found or ([], [])
    includes = []

    # Folders outside the compiler's own search path are linked into this repository: Bazel
    # rejects headers that it does not know.
    for flag in compile:
        if flag.startswith("-I") and flag != "-I/usr/include":
            folder = "%s_include_%d" % (name, len(includes))
            ctx.symlink(flag[len("-I"):], folder)
            includes.append(folder)
    return _TARGET.format(
        name = name,
        headers = repr([folder + "/**/*.h" for folder in includes]),
        defines = repr([flag[len("-D"):] for flag in compile if flag.startswith("-D")] + library.defines),
        includes = repr(includes),
        linkopts = repr(_last_occurrences(link)),
        compatible_with = repr([] if found else ["@//bazel:never"]),
        deps = repr([":" + dep for dep in library.deps]),
    )

def _system_libs_impl(ctx):
    build = ["package(default_visibility = [\"//visibility:public\"])"]
    for name, library in _LIBRARIES.items():
        build.append(_target(ctx, name, library))
    for program in _PROGRAMS:
        path = ctx.which(program)
        if path:
            ctx.symlink(path, program)
            build.append("exports_files([\"%s\"])" % program)
    for name, path in _FILES.items():
        if ctx.path(path).exists:
            ctx.symlink(path, name)
            build.append("exports_files([\"%s\"])" % name)
    ctx.file("BUILD", "\n".join(build) + "\n")

system_libs = repository_rule(
    implementation = _system_libs_impl,
    doc = "Makes @system_libs, see above.",
    local = True,
    configure = True,
    environ = ["PKG_CONFIG_PATH"],
)
