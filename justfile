# Recipes for daily work; CONTRIBUTING.md explains them.

# List the recipes
default:
    @just --list

# Run the gateway, e.g. `just run --config gateway.toml`
run *arguments:
    cargo run --release -- {{arguments}}

# Run the tests, or those whose names contain an argument
test *arguments:
    cargo test --workspace --locked {{arguments}}

# Everything that a change must pass
check:
    .ci/run

# Format the code
format:
    cargo fmt --all

# Build the documentation of all packages and open it
docs:
    cargo doc --workspace --no-deps --locked --open

# Play the draft's example, e.g. `just demo --federated`
demo *arguments:
    cargo run --release -- demo {{arguments}}

# Run one benchmark, e.g. `just bench commit_cost`
bench name *arguments:
    cargo bench --locked --bench {{name}} -- {{arguments}}

# Measure throughput relative to the machine
capacity *arguments:
    cargo run --release -- loadtest capacity {{arguments}}

# Check the OpenAPI document with redocly, schemathesis and generated clients
document length="long":
    cargo build --workspace --locked
    tests/document/run {{length}}

# Kill the gateway under load, again and again
crash rounds="100":
    MIMI_CRASH_ROUNDS={{rounds}} cargo test --workspace --locked --test crash

# Random histories of replication
replication seeds="200":
    MIMI_REPLICATION_SEEDS={{seeds}} cargo test --workspace --locked --test replication

# Simulated histories of three gateways; a run that was ended goes on
simulation histories="1000000":
    RUSTFLAGS="--cfg tokio_unstable" CARGO_TARGET_DIR=target/simulation MIMI_SIMULATION_HISTORIES={{histories}} cargo test --release --locked -p mimi-gateway-actors --features simulation --test simulation histories_keep

# Shared groups while connections break and gateways are killed
federation rounds="200":
    MIMI_FEDERATION_ROUNDS={{rounds}} cargo test --workspace --locked --test it -- federation::

# Attacks, larger than in the tests
hostile scale="10":
    MIMI_HOSTILE_SCALE={{scale}} cargo test --workspace --locked --test hostile

# Random groups and changed messages, next to the MLS libraries
differential commits="100000" mutations="1000000":
    MIMI_DIFFERENTIAL_COMMITS={{commits}} MIMI_DIFFERENTIAL_MUTATIONS={{mutations}} cargo test --release --workspace --locked --test differential -- --nocapture

# Fuzz every parser of foreign bytes for so long each; needs a nightly compiler and cargo-fuzz
fuzz seconds="1800":
    fuzz/run {{seconds}}

# Rewrite docs/pkits.md from NIST's path validation suite
pkits:
    PKITS_WRITE=1 cargo test --workspace --locked --test pkits
