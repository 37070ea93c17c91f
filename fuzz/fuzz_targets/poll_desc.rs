#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| netpoller_fuzz::poll_desc::run(bytes));
