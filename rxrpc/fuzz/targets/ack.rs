//! libFuzzer's way into `fuzz::ack`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::ack(data));
