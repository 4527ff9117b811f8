//! Images made from trees: read back, damaged, mounted by the kernel, checked by `fsck.erofs`.

mod damage;
mod fsck;
mod kernel;
mod model;
mod roundtrip;
mod samples;
mod support;
