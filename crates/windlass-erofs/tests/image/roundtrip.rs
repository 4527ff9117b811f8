//! What was written is read back.

use crate::support::{Contents, image_file, listing_of_image, listing_of_tree, plain};
use windlass_erofs::{Image, New, Tree};

#[test]
fn a_small_layer_is_read_back() {
    let mut contents = Contents::default();
    let mut tree = Tree::new(1 << 30);
    let root = tree.root();
    let etc = tree.insert(root, b"etc", New::Directory, &plain(0o755)).unwrap();
    let file = tree.insert(etc, b"passwd", New::File, &plain(0o644)).unwrap();
    tree.set_content(file, contents.add(b"root:x:0:0\n")).unwrap();
    tree.link(root, b"again", file).unwrap();
    tree.insert(root, b"link", New::Symlink(b"etc/passwd"), &plain(0o777)).unwrap();
    let bytes = image_file(&tree, &contents);
    let image = Image::open(&bytes, bytes.len() as u64).unwrap();
    image.check_metadata().unwrap();
    assert_eq!(listing_of_image(&image), listing_of_tree(&tree, &contents));
}
