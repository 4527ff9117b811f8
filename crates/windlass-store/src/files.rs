//! The files of an image, for those who only look.

use std::fs::File;
use std::os::fd::AsFd as _;

use crate::error::StoreError;
use crate::image::Image;
use crate::layer::{self, Form, Hear};
use crate::meta::record;
use crate::store::Store;

impl Store {
    /// Tells `each` of every file of an image, as a mount would show them: directories first, names in the order of their
    /// bytes. Needs no right to mount and changes nothing.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] for an image that is not whole; what is found damaged on the way, after the entries before.
    pub fn files(&self, image: &Image, each: Hear<'_>) -> Result<(), StoreError> {
        if let Some(what) = &image.damage {
            return Err(StoreError::Damaged { image: image.id.clone(), what: what.clone() });
        }
        let layers = self.layers(image)?;
        let open = |n| {
            let path = self.layout().snapshot(n);
            File::open(&path).map_err(|source| StoreError::io("open", &path, source))
        };
        let snapshots = layers.iter().map(|(_, record)| open(record.n)).collect::<Result<Vec<_>, _>>()?;
        let snapshots: Vec<_> = snapshots.iter().map(File::as_fd).collect();
        // An ordinary user's store has nothing else.
        let is_users =
            !layers.is_empty() && layers.iter().all(|(_, record)| record.form == record::Form::UserDirectory);
        let form = if is_users { Form::User } else { Form::Root };
        layer::list(&snapshots, form, each).map_err(|source| StoreError::Tree {
            action: "list the files in",
            path: self.layout().snapshots(),
            source,
        })
    }
}
