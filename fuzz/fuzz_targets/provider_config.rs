#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| windlass_fuzz::provider_config::run(bytes));
