//! Tests of what is accepted and what is refused.

mod credentials;
mod form;
mod mutation;
mod round_trip;
mod times;
