//! Test images, hostile layers and a registry that misbehaves.
