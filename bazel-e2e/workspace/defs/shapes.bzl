"""Outputs of other shapes than a file: trees and symbolic links."""

def _tree_impl(ctx):
    tree = ctx.actions.declare_directory(ctx.label.name)
    ctx.actions.run_shell(
        outputs = [tree],
        arguments = [tree.path, str(ctx.attr.files)],
        command = """
cd "$1" && mkdir -p deep/er/still "with space"
for i in $(seq "$2"); do mkdir -p "part$((i % 10))"; seq "$i" > "part$((i % 10))/file$i.txt"; done
: > deep/empty
printf '#!/bin/sh\\necho tree\\n' > deep/er/run.sh && chmod +x deep/er/run.sh
echo spaced > "with space/a file"
cp deep/er/run.sh deep/er/still/same-bytes-again
ln -s ../empty deep/er/link
""",
        mnemonic = "SampleTree",
    )
    return [DefaultInfo(files = depset([tree]))]

tree = rule(implementation = _tree_impl, attrs = {"files": attr.int(default = 100)})

def _listing_impl(ctx):
    out = ctx.actions.declare_file(ctx.label.name + ".txt")
    ctx.actions.run_shell(
        inputs = ctx.files.tree,
        outputs = [out],
        arguments = [ctx.files.tree[0].path, out.path],
        command = 'to=$PWD/$2; cd "$1" && find . -type f -print0 | sort -z | xargs -0 sha256sum > "$to"',
        mnemonic = "SampleListing",
    )
    return [DefaultInfo(files = depset([out]))]

listing = rule(implementation = _listing_impl, attrs = {"tree": attr.label(mandatory = True)})

def _links_impl(ctx):
    # One that Bazel makes itself, one that an action makes and that points nowhere.
    followed = ctx.actions.declare_file(ctx.label.name + ".followed")
    ctx.actions.symlink(output = followed, target_file = ctx.file.to)
    dangling = ctx.actions.declare_symlink(ctx.label.name + ".dangling")
    ctx.actions.run_shell(
        outputs = [dangling],
        arguments = [dangling.path],
        command = 'ln -s no/such/file "$1"',
        mnemonic = "SampleLink",
    )
    return [DefaultInfo(files = depset([followed, dangling]))]

links = rule(implementation = _links_impl, attrs = {"to": attr.label(mandatory = True, allow_single_file = True)})

def _script_test_impl(ctx):
    script = ctx.actions.declare_file(ctx.label.name + ".sh")
    ctx.actions.write(script, "#!/bin/sh\nset -eu\n" + ctx.attr.script, is_executable = True)
    return [DefaultInfo(executable = script, runfiles = ctx.runfiles(ctx.files.data))]

script_test = rule(
    implementation = _script_test_impl,
    attrs = {"data": attr.label_list(allow_files = True), "script": attr.string(mandatory = True)},
    test = True,
)
