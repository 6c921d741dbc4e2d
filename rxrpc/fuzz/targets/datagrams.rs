//! libFuzzer's way into `fuzz::datagrams`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::datagrams(data));
