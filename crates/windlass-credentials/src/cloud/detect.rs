//! Which cloud this machine is in, from what its firmware says: nothing is asked over the network.
//!
//! In: the files below `/sys/class/dmi/id`, readable by everybody. Out: at most one [`Cloud`].
//! Source of truth: cloud-init `tools/ds-identify`, the kubelet's old GCE provider, Azure's chassis asset tag.
//!
//! Invariants: `each_cloud_is_known_by_its_firmware`, `firmware_is_read_with_bounds`.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// Where the kernel shows what the firmware says.
pub const FIRMWARE: &str = "/sys/class/dmi/id";
/// Longest text of the firmware.
const TEXT_BYTES: u64 = 256;
/// What every machine of Azure has on its chassis.
const AZURE_TAG: &str = "7783-7084-3265-9085-8269-3286-77";

/// A cloud that has registries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cloud {
    /// Amazon.
    Amazon,
    /// Google.
    Google,
    /// Microsoft.
    Azure,
}

/// What the firmware of a machine says; empty where it says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Firmware {
    /// `sys_vendor`.
    pub vendor: String,
    /// `product_name`.
    pub product: String,
    /// `bios_version`.
    pub bios_version: String,
    /// `chassis_asset_tag`.
    pub chassis: String,
}

impl Firmware {
    /// Reads the files in `folder`, usually [`FIRMWARE`]. What cannot be read is empty: containers often see none of it.
    pub fn read(folder: &Path) -> Firmware {
        let text = |name: &str| {
            let mut text = String::new();
            let read = File::open(folder.join(name)).and_then(|file| file.take(TEXT_BYTES).read_to_string(&mut text));
            if read.is_ok() { text.trim().to_owned() } else { String::new() }
        };
        Firmware {
            vendor: text("sys_vendor"),
            product: text("product_name"),
            bios_version: text("bios_version"),
            chassis: text("chassis_asset_tag"),
        }
    }

    /// The cloud of the machine, if it is in one that is known.
    pub fn cloud(&self) -> Option<Cloud> {
        // Older instances run under Xen and name Amazon only in the version of their BIOS.
        if self.vendor == "Amazon EC2" || self.bios_version.to_ascii_lowercase().contains("amazon") {
            Some(Cloud::Amazon)
        } else if matches!(self.product.as_str(), "Google" | "Google Compute Engine") {
            Some(Cloud::Google)
        } else if self.chassis == AZURE_TAG {
            Some(Cloud::Azure)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cloud_is_known_by_its_firmware() {
        let firmware = |vendor: &str, product: &str, bios_version: &str, chassis: &str| Firmware {
            vendor: vendor.to_owned(),
            product: product.to_owned(),
            bios_version: bios_version.to_owned(),
            chassis: chassis.to_owned(),
        };
        let table = [
            (firmware("Amazon EC2", "m7g.large", "1.0", "Amazon EC2"), Some(Cloud::Amazon)),
            (firmware("Xen", "HVM domU", "4.11.amazon", ""), Some(Cloud::Amazon)),
            (firmware("Google", "Google Compute Engine", "Google", ""), Some(Cloud::Google)),
            (firmware("Microsoft Corporation", "Virtual Machine", "090008", AZURE_TAG), Some(Cloud::Azure)),
            (firmware("Microsoft Corporation", "Virtual Machine", "090008", "1234"), None),
            (firmware("QEMU", "Standard PC", "1.16", ""), None),
            (Firmware::default(), None),
        ];
        for (firmware, want) in table {
            assert_eq!(firmware.cloud(), want, "{firmware:?}");
        }
    }

    #[test]
    fn firmware_is_read_with_bounds() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Firmware::read(folder.path()), Firmware::default());
        std::fs::write(folder.path().join("product_name"), "Google Compute Engine\n").unwrap();
        std::fs::write(folder.path().join("sys_vendor"), "x".repeat(5000)).unwrap();
        std::fs::write(folder.path().join("chassis_asset_tag"), b"\xff").unwrap();
        let firmware = Firmware::read(folder.path());
        assert_eq!((firmware.cloud(), firmware.vendor.len()), (Some(Cloud::Google), 256));
    }
}
