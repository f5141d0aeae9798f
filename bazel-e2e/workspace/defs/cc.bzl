"""C++ targets of the sample: many, from the few files in //src."""

load("@rules_cc//cc:cc_binary.bzl", "cc_binary")
load("@rules_cc//cc:cc_library.bzl", "cc_library")
load("@rules_cc//cc:cc_test.bzl", "cc_test")

def libraries(prefix, count):
    """Declares PREFIX_0 to PREFIX_(count - 1): each has two objects and an archive, and depends on earlier ones."""
    for i in range(count):
        deps = ["%s_%d" % (prefix, d) for d in ([] if i == 0 else [(i - 1) // 2] + ([i // 4] if i > 4 else []))]
        cc_library(
            name = "%s_%d" % (prefix, i),
            srcs = ["//src:part.cc", "//src:words.cc"],
            linkstatic = True,
            local_defines = [
                "PART=%s_%d" % (prefix, i),
                "EACH_DEP(X)=" + "".join(["X(%s)" % d for d in deps]),
            ],
            visibility = ["//visibility:public"],
            deps = deps,
        )

def app(name, library):
    """A binary that links LIBRARY, and a genrule that runs it."""
    cc_binary(
        name = name,
        srcs = ["//src:app.cc"],
        local_defines = ["PART=" + library.split(":")[1]],
        deps = [library],
    )
    native.genrule(
        name = name + "_output",
        outs = [name + ".txt"],
        cmd = "$(execpath :%s) > $@" % name,
        tools = [name],
    )

def library_test(name, library, lines = 0):
    """A test that links LIBRARY and prints LINES lines."""
    cc_test(
        name = name,
        size = "small",
        srcs = ["//src:test.cc"],
        linkstatic = True,
        local_defines = ["PART=" + library.split(":")[1], "LINES=%d" % lines],
        deps = [library],
    )
