//! What the types refuse: programs that must not compile, each with what the compiler says about it in `ui/`.
//!
//! Rewrite the `.stderr` files with `TRYBUILD=overwrite cargo test -p rxrpc --test compile_fail`, and look at what changed.

#[test]
fn what_must_not_compile_does_not() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
