//! Bodies of the fuzz targets, one module per crate under test.
//!
//! The crates include these files in their own tests and replay the corpus with them, so that
//! what a fuzzer found stays found without a fuzzer.

pub mod engine;
pub mod nfqueue;
pub mod token;
pub mod wire;
