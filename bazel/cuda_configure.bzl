"""@local_config_cuda: the machine's CUDA toolkit, or its absence.

Looks at $MOEBIUS_CUDA (auto | 0 | 1), $CUDA_PATH, $CUDA_HOME, /usr/local/cuda."""

def _find(ctx):
    want = ctx.os.environ.get("MOEBIUS_CUDA", "auto")
    if want == "0":
        return None
    for d in [ctx.os.environ.get("CUDA_PATH"), ctx.os.environ.get("CUDA_HOME"), "/usr/local/cuda"]:
        if d and ctx.path(d + "/bin/nvcc").exists and ctx.path(d + "/include/cuda_runtime.h").exists:
            return d
    if want == "1":
        fail("MOEBIUS_CUDA=1, but no CUDA toolkit (bin/nvcc) below CUDA_PATH, CUDA_HOME or /usr/local/cuda")
    return None

_LIBS = {
    "cudart_static": ("libcudart_static.a", ["-lcudart_static", "-ldl", "-lrt", "-lpthread"], "cuda_runtime.h"),
    "cudart": ("libcudart.so", ["-lcudart"], "cuda_runtime.h"),
    "cublas": ("libcublas.so", ["-lcublas", "-lcublasLt"], "cublas_v2.h"),
    "cudnn": ("libcudnn.so", ["-lcudnn"], "cudnn.h"),
    "nccl": ("libnccl.so", ["-lnccl"], "nccl.h"),
}

def _impl(ctx):
    root = _find(ctx)
    out = ["package(default_visibility = [\"//visibility:public\"])"]
    have = {}
    version = ""
    if root:
        r = ctx.execute([root + "/bin/nvcc", "--version"])
        if r.return_code != 0:
            fail("nvcc --version failed: " + r.stderr)
        version = r.stdout.split("release ")[1].split(",")[0]
        ctx.symlink(root + "/include", "include")
        out.append("cc_library(name = \"headers\", hdrs = glob([\"include/**\"], exclude = [\"include/**/*.cmake\"]), includes = [\"include\"])")
        lib = "lib64" if ctx.path(root + "/lib64").exists else "lib"
    else:
        lib = ""
        out.append("cc_library(name = \"headers\", target_compatible_with = [\"@//bazel:never\"])")
    for name, (f, flags, hdr) in _LIBS.items():
        ok = bool(root) and ctx.path("%s/%s/%s" % (root, lib, f)).exists and ctx.path("%s/include/%s" % (root, hdr)).exists
        have[name] = ok
        if ok:
            rp = [] if name == "cudart_static" else ["-Wl,-rpath,%s/%s" % (root, lib)]
            out.append("cc_library(name = \"%s\", linkopts = %r, deps = [\":headers\"])" % (name, ["-L%s/%s" % (root, lib)] + rp + flags))
        else:
            out.append("cc_library(name = \"%s\", target_compatible_with = [\"@//bazel:never\"])" % name)
    ctx.file("BUILD", "\n".join(out) + "\n")
    ctx.file("defs.bzl", """CUDA_AVAILABLE = %r
CUDA_ROOT = %r
CUDA_VERSION = %r
CUDA_HAVE = %r

def if_cuda(yes, no = []):
    return yes if CUDA_AVAILABLE else no
""" % (bool(root), root or "", version, have))

cuda_configure = repository_rule(
    implementation = _impl,
    local = True,
    configure = True,
    environ = ["MOEBIUS_CUDA", "CUDA_PATH", "CUDA_HOME"],
)
