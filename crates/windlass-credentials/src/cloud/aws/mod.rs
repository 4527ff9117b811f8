//! Amazon ECR.

mod keys;
mod sigv4;
