"""Blobs of a given size."""

def blob(name, seed, size_bytes):
    native.genrule(
        name = name,
        outs = [name + ".bin"],
        cmd = "$(execpath //blobs:blob) %d %d $@" % (seed, size_bytes),
        tools = ["//blobs:blob"],
    )
