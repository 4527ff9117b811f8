//! The fakes of the clouds that tests use, for a person. A program of the test kit, so that this crate stays quick to build.

use crate::shell::{cargo, run};

pub(crate) fn run_until_interrupted() -> anyhow::Result<()> {
    run(cargo().args(["run", "--quiet", "--locked", "-p", "windlass-testkit", "--bin", "clouds"]))
}
