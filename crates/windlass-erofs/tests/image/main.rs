//! Images made from trees: read back, damaged, mounted by the kernel, checked by `fsck.erofs`.

mod kernel;
mod roundtrip;
mod support;
