#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| windlass_fuzz::www_authenticate::run(bytes));
