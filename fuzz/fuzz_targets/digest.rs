#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| windlass_fuzz::digest::run(bytes));
