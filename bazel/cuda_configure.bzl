"""@local_config_cuda: the machine's CUDA toolkit, or its absence.

Looks below $CUDA_PATH, $CUDA_HOME and /usr/local/cuda. `--repo_env=MOEBIUS_CUDA=0` ignores a toolkit,
`--repo_env=MOEBIUS_CUDA=1` fails when there is none. Without a toolkit every CUDA target is incompatible, so that a
build skips it and says nothing.
"""

def _library(file, header, link):
    """A library of the toolkit: it counts as installed when both its file and its header are there."""
    return struct(file = file, header = header, link = link)

_LIBRARIES = {
    "cudart_static": _library(
        "libcudart_static.a",
        "cuda_runtime.h",
        ["-lcudart_static", "-ldl", "-lrt", "-lpthread"],
    ),
    "cublas": _library("libcublas.so", "cublas_v2.h", ["-lcublas", "-lcublasLt"]),
    "cudnn": _library("libcudnn.so", "cudnn.h", ["-lcudnn"]),
    "nccl": _library("libnccl.so", "nccl.h", ["-lnccl"]),
}

_HEADERS = """
cc_library(
    name = "headers",
    hdrs = glob(["include/**"], exclude = ["include/**/*.cmake"]),
    includes = ["include"],
)
"""

_TARGET = """
cc_library(
    name = "{name}",
    linkopts = {linkopts},
    deps = [":headers"],
)
"""

_ABSENT = """
cc_library(
    name = "{name}",
    target_compatible_with = ["@//bazel:never"],
)
"""

_DEFS = """CUDA_AVAILABLE = {available}
CUDA_ROOT = {root}
CUDA_VERSION = {version}
"""

def _find_toolkit(ctx):
    """The toolkit's folder, or None."""
    wish = ctx.os.environ.get("MOEBIUS_CUDA", "auto")
    if wish == "0":
        return None
    for folder in [ctx.os.environ.get("CUDA_PATH"), ctx.os.environ.get("CUDA_HOME"), "/usr/local/cuda"]:
        if folder and ctx.path(folder + "/bin/nvcc").exists and ctx.path(folder + "/include/cuda_runtime.h").exists:
            return folder
    if wish == "1":
        fail("MOEBIUS_CUDA=1, but there is no bin/nvcc below CUDA_PATH, CUDA_HOME or /usr/local/cuda")
    return None

def _version(ctx, root):
    result = ctx.execute([root + "/bin/nvcc", "--version"])
    if result.return_code != 0:
        fail("nvcc --version failed: " + result.stderr)
    return result.stdout.split("release ")[1].split(",")[0]

def _target(ctx, root, name, library):
    """The BUILD text of one library."""
    folder = root + ("/lib64" if ctx.path(root + "/lib64").exists else "/lib")
    if not ctx.path(folder + "/" + library.file).exists or not ctx.path(root + "/include/" + library.header).exists:
        return _ABSENT.format(name = name)
    is_static = library.file.endswith(".a")
    search = ["-L" + folder] + ([] if is_static else ["-Wl,-rpath," + folder])
    return _TARGET.format(name = name, linkopts = repr(search + library.link))

def _cuda_configure_impl(ctx):
    root = _find_toolkit(ctx)
    build = ["package(default_visibility = [\"//visibility:public\"])"]
    if root:
        ctx.symlink(root + "/include", "include")
        build.append(_HEADERS)
        build += [_target(ctx, root, name, library) for name, library in _LIBRARIES.items()]
    else:
        build += [_ABSENT.format(name = name) for name in ["headers"] + _LIBRARIES.keys()]
    ctx.file("BUILD", "\n".join(build) + "\n")
    ctx.file("defs.bzl", _DEFS.format(
        available = bool(root),
        root = repr(root or ""),
        version = repr(_version(ctx, root) if root else ""),
    ))

cuda_configure = repository_rule(
    implementation = _cuda_configure_impl,
    doc = "Makes @local_config_cuda, see above.",
    local = True,
    configure = True,
    environ = ["MOEBIUS_CUDA", "CUDA_PATH", "CUDA_HOME"],
)
