"""Shared libraries that the program opens when it runs, found beside its own file.

    cc_plugin(name = "libmoebius_x.so", srcs = ["x_plugin.cc"], deps = [...])     # where its sources live
    beside(name = "plugins", srcs = ["//x:libmoebius_x.so"])                        # in the program's package
    cc_binary(name = "moebius", data = [":plugins"], ...)

Building the program then builds its plugins and puts them beside it.
"""

def cc_plugin(name, **kwargs):
    """A shared library whose interface is what its sources export; its libraries' symbols stay inside."""
    native.cc_binary(
        name = name,
        linkopts = ["-Wl,--exclude-libs,ALL"] + kwargs.pop("linkopts", []),
        linkshared = True,
        **kwargs
    )

def _beside_impl(ctx):
    links = []
    for source in ctx.files.srcs:
        link = ctx.actions.declare_file(source.basename)
        ctx.actions.symlink(output = link, target_file = source)
        links.append(link)
    return [DefaultInfo(files = depset(links), runfiles = ctx.runfiles(files = links))]

beside = rule(
    implementation = _beside_impl,
    doc = "Links the files of `srcs`, under their own names, into this package's output folder.",
    attrs = {"srcs": attr.label_list(allow_files = True)},
)
