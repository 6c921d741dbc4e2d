//! libFuzzer's way into `fuzz::security`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::security(data));
