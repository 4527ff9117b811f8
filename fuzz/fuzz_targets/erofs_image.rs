#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| windlass_fuzz::erofs_image::run(bytes));
