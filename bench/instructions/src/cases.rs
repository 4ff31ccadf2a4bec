//! What is counted.

mod engine;
mod policy;
mod token;

use anyhow::bail;

/// The names of all cases.
pub(crate) const ALL: [&str; 13] = [
    "decide-10-rules",
    "decide-10000-rules",
    "mac",
    "verify-token",
    "verify-token-and-certificate",
    "known-syn-from-pu",
    "known-syn-to-pu",
    "known-syn-ack-from-pu",
    "known-syn-ack-to-pu",
    "known-ack-from-pu",
    "known-ack-to-pu",
    "first-syn-to-pu",
    "stray-segment-to-pu",
];

/// How often each case calls the measured section.
pub(crate) const CALLS: u64 = 64;

/// Runs one case.
pub(crate) fn run(case: &str) -> anyhow::Result<()> {
    match case {
        "decide-10-rules" => policy::decide(10),
        "decide-10000-rules" => policy::decide(10_000),
        "mac" => token::mac(),
        "verify-token" => token::verify(true),
        "verify-token-and-certificate" => token::verify(false),
        "known-syn-from-pu" => engine::known(engine::Step::SynFrom),
        "known-syn-to-pu" => engine::known(engine::Step::SynTo),
        "known-syn-ack-from-pu" => engine::known(engine::Step::SynAckFrom),
        "known-syn-ack-to-pu" => engine::known(engine::Step::SynAckTo),
        "known-ack-from-pu" => engine::known(engine::Step::AckFrom),
        "known-ack-to-pu" => engine::known(engine::Step::AckTo),
        "first-syn-to-pu" => engine::first_syn(),
        "stray-segment-to-pu" => engine::stray(),
        _ => bail!("there is no case {case}"),
    }
}

/// The code whose instructions callgrind counts, found by this function's name.
#[inline(never)]
pub(crate) fn measured_section<T>(code: impl FnOnce() -> T) -> T {
    std::hint::black_box(code())
}
