# Recipes for people and for CI alike: .ci/run calls these and nothing else. `ci/try` and `ci/test` install `just`.

set shell := ["bash", "-euo", "pipefail", "-c"]

# Lists the recipes.
default:
    @just --list --unsorted

# Builds every crate.
build:
    cargo build --workspace

# Runs all tests.
test *args:
    cargo test --workspace {{ args }}

# The promises, checked against nodes over one Tier 2 in so many random histories; `just test` runs some hundreds.
model cases="10000" seed=`date +%s`:
    MODEL_CASES={{ cases }} MODEL_SEED={{ seed }} cargo test -p gorego --test it mesh::model -- --nocapture

# How soon a node notices that Tier 2 is back, and how soon calls fail meanwhile: real times, printed and never judged.
recovery rounds="50":
    RECOVERY_ROUNDS={{ rounds }} cargo test -p gorego --test it process::recovery -- --nocapture

# How fast leases and copies of action results answer, and what they take in memory: printed and never judged.
bench-presence *args:
    cargo bench -p gorego --bench presence -- {{ args }}

# Format, lints, documentation and dependency policy: warnings are errors.
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --quiet -- -D warnings
    RUSTDOCFLAGS=-Dwarnings cargo doc --workspace --no-deps --quiet
    ci/cargo-deny
    ci/mutants/run --check

# Builds a sample Bazel project through the node, in scenarios, and prints a table (`just e2e --help`).
e2e *args:
    ci/e2e {{ args }}

# Black-box checks of the protocol: our node, real servers, our node over them (`just conformance --all` fetches more).
conformance *args:
    ci/conformance {{ args }}

# Builds reapi-conformance as one static binary for other machines, and prints its path.
reapi-conformance:
    ci/reapi-conformance

# Whole nodes in trouble: scenarios, then every fault of Tier 2 in every call (`just faults --help`).
faults *args:
    cargo test --quiet -p gorego --test faults -- {{ args }}

# Breaks each promise by a patch in a copy of the tree, and requires that its test notices. Takes long: for the night.
mutants *args:
    ci/mutants/run {{ args }}

# Starts a node with the embedded Tier 2.
run *args:
    cargo run -p gorego -- serve {{ args }}
