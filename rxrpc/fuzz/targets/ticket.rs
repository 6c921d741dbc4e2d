//! libFuzzer's way into `fuzz::ticket`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::ticket(data));
